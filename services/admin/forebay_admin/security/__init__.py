"""From where Forebay may be reached, who is banned, and what happened that somebody should look at."""
