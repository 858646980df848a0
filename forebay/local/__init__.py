"""A whole Forebay on one machine: what `forebay up` starts, watches and stops."""
