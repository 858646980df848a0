"""Audit, recordings, security events and what was told to whom."""
