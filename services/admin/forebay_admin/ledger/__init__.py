"""What was used: the ledger's rows from the stream into PostgreSQL, and sums of them."""
