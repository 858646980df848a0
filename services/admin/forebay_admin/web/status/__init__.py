"""What everybody sees: how the cluster is, which models there are, and how to ask for access."""
