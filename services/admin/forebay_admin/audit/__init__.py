"""Every act of an operator, recorded before it counts."""
