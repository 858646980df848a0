"""How requests come in: over aiohttp, and over a protocol of our own for those that are asked all the time."""
