"""The fleet as others see it: what is wanted and what is seen, joined, versioned and told."""
