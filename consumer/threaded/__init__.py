"""OutboxWorker and its threads: one Fetcher claims and prepares, several SenderThreads send, one Completer records."""
