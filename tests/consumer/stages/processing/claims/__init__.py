"""Which messages a worker claims, and which it leaves to others."""
