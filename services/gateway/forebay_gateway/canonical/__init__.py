"""The form in the middle: OpenAI's requests, answers and streams, what they are made of and how one is told to an engine.

Pure. Dialects translate to it and from it, engines are spoken to in it or from it."""
