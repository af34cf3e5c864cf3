"""Mail servers that are busy, away, or refuse."""
