"""Commands to nodes' agents: signed here, answered there."""
