"""How it was, what was used and what was taken."""
