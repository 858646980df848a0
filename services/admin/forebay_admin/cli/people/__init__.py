"""Who may ask, and how much: users, groups, keys and quotas."""
