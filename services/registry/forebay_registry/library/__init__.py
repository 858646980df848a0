"""Models on the engines: orders to fetch, delete, copy and load them, and those that must be there or stay loaded."""
