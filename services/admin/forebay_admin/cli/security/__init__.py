"""Commands about who is let in from where, and what happened that somebody should look at."""
