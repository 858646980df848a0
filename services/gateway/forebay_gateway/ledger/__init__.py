"""One record of each request: in the journal from its beginning, published when it has ended."""
