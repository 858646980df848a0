"""The history of the schema `admin`. Migrations only ever add, so that they may run before or after the code changes."""
