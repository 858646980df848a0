"""The operators' calls as a REST API on admin's HTTP port: the same rights, the same audit, the same desks."""
