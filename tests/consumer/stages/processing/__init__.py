"""One message from its claim to its outcome, against a real PostgreSQL and a real mail server."""
