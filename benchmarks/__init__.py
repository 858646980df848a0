"""Measurements: what is claimed of Forebay, measured on this machine."""
