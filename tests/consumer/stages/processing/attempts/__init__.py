"""What a failed attempt leaves, and what each attempt has in common."""
