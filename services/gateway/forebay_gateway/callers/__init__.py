"""Who calls, and what they ask for outside of the body."""
