"""Whatever others write into the outbox or into Redis, the service continues, and every list shows all of it."""
