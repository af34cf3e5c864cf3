"""PostgreSQL that is away, or whose answers are lost."""
