"""Models on the pool's Ollama engines, managed through Ollama's API by those who may."""
