"""A whole Forebay in one file, and back: `forebay backup`, `forebay restore`."""
