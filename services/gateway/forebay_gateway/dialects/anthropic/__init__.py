"""Anthropic's dialect: messages, translated to OpenAI's chat and back."""
