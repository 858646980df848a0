"""Money: what models cost and when, what each request cost, and what was paid in advance."""
