"""Ollama's own dialect: passed through to Ollama, translated to OpenAI's for every other engine."""
