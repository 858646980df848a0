"""How people get in: passwords, providers, codes for devices; sessions and narrow tokens."""
