"""What requests and answers said, where policy wants it kept: taken from the bus, redacted, searched, and dropped again."""
