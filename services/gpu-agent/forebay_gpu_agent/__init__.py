"""The agent that runs on every GPU node."""
