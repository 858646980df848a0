"""The scheduler that leads, asked for operators."""
