"""The queue and why it decided as it did; usage and cost; configuration."""
