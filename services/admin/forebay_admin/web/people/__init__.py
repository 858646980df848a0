"""Users, groups, roles, keys, budgets, and what was asked for."""
