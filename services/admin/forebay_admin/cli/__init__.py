"""The commands that talk to a running Forebay: `forebay NOUN VERB`."""
