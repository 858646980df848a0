"""What is answered without a slot: lists, counts, and what is kept."""
