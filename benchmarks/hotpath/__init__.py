"""What a request and a streamed token cost in this gateway and in others, side by side: `python -m benchmarks.hotpath`."""
