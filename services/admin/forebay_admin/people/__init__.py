"""Who there is: users, groups with their shares, roles, and who a caller is."""
