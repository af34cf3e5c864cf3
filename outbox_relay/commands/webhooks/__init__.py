"""`python -m outbox_relay webhooks`: manage the endpoints that get events as webhooks."""
