"""What models cost, what requests cost, and what was paid in advance."""
