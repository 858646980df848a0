"""The engines on this host: which there are, and which GPUs they hold."""
