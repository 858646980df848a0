"""`forebay doctor`: what is wrong with a machine that runs Forebay, or is to run it, and what to do about it."""
