"""What operators say of models: other names for them, and what is done to requests for them."""
