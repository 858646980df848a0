"""What the agents say of their nodes."""
