"""What Forebay withstands: one row of docs/reliability.md after another, with figures."""
