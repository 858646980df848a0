"""An authority of one's own, and the certificates by which Forebay's parts, NATS and PostgreSQL know each other."""
