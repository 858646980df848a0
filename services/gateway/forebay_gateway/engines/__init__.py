"""Cloud providers with a wire of their own: OpenAI's chat translated to theirs, and their answers back."""
