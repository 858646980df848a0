"""What can be asked for: models, their rules and stand-ins, and orders about them."""
