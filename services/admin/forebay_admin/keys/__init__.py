"""API keys, and the public keys with which clients sign."""
