"""Conversations with models, kept here and answered by the gateway."""
