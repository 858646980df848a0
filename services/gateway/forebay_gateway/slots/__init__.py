"""Room on backends: asked of the scheduler, lent by it, or taken within the ceilings while nobody leads."""
