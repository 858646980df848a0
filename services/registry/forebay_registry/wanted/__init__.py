"""What operators want: backends, nodes, and what they may say about them."""
