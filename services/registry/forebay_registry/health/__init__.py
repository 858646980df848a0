"""How backends are, and when to look at them again."""
