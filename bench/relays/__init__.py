"""Relays, each as its users write it: from pending rows to jobs that stand in Redis, one batch at a time."""
