"""What engines are told and what they mean, where it is not OpenAI's chat as it stands: providers with a wire of their own,
engines with a gap, their credentials and their errors. Pure: the way to them is `upstream`.

Each translates the canonical form to its engine's words, and its answers back."""
