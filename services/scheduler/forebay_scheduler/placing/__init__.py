"""Where a request starts: which backends have room, and which of them answers soonest. Pure.

Whose turn it is, what it costs and who may hold how much is decided elsewhere."""
