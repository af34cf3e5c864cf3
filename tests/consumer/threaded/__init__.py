"""`rq worker critical default` with RQ_WORKER_CLASS=consumer.worker.OutboxWorker, as a process."""
