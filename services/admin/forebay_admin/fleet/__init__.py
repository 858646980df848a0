"""Operators' calls about the fleet: authorised and audited here, done by the registry."""
