"""What outlives the process: Postgres, and the sealed snapshot for when it is away."""
