"""Where a request spent its time, told to whoever collects traces. What has a span is said by what does it."""
