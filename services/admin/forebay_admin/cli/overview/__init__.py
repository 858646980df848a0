"""How the whole is: its health, its load and what has to be looked after."""
