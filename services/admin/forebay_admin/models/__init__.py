"""What operators say of models: prices and weights, rules, aliases, fallbacks."""
