"""Several processes behind one address: the parent that holds the door, and what it and its workers tell each other."""
