"""Nodes, backends, models, and how all of it is."""
