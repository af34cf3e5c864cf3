"""Password rules, hashing and comparison."""
