"""Limits and budgets, what is spent of them, and what the scheduler is told."""
