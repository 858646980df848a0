"""What clients let us keep: responses, conversations, files."""
