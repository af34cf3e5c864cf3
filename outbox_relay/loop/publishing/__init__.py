"""Publishing: which pending messages a batch takes, and pushing their jobs to Redis."""
