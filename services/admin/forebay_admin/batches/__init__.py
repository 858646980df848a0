"""Batches: many requests in one file, which admin sends to the gateways for the user whose they are."""
