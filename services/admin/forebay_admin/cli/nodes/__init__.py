"""Machines whose agents report GPUs and load."""
