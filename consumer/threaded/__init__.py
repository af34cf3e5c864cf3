"""OutboxWorker and its threads: one fetches jobs, several send, one completes."""
