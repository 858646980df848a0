"""Commands of the registry to this node: which are obeyed, and obeying them."""
