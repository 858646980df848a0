"""What engines say of themselves: asking them, and reading the answers."""
