"""The engines behind the one address."""
