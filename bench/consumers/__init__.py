"""The same mail task written for other job queues: celery, dramatiq, procrastinate and plain RQ."""
