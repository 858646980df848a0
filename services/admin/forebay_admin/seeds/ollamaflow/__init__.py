"""OllamaFlow's: `/v1.0/frontends` and `/v1.0/backends`."""
