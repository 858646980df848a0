"""Pages for people: status, one's own things, the console, chat. Made of the operators' calls and of nothing else."""
