"""The fleet as a whole: declared in files, gathered in pools, emptied for work on it."""
