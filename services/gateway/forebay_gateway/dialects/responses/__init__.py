"""OpenAI's Responses API in front of a chat engine: its requests become chat's, and chat's answers become its own."""
