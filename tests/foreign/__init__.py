"""Whatever somebody else wrote into the outbox or into Redis: the service goes on, and every list shows all of it."""
