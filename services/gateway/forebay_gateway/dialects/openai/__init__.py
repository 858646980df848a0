"""OpenAI's dialect: what its requests must hold, and how errors and models look in it."""
