"""Who waits for what, and what became of one request."""
