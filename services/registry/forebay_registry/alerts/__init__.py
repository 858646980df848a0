"""What somebody has to look after: rules over what the registry knows, one open alert for each rule and subject, and telling
it. `rules`, `facts`, `findings`, `book` and `outbox` decide and are pure; the rest reads, keeps, sends and answers."""
