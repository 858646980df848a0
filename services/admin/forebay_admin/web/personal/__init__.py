"""What is one's own: usage, keys, limits, sessions."""
