"""Whose turn it is, and who was charged what: a hierarchical start-time fair queue over the cost of tokens. Pure.

Where a request then goes is placement's job; what anyone may use at all is that of the limits."""
