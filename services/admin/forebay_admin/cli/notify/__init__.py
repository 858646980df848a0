"""Commands about events and who is told of them."""
