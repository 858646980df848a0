"""Which of several registries acts, and how the others' writes are kept out."""
