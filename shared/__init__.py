"""Code that API, relay and consumer share: the outbox, settings, database connections, logs and traces.

Guarantee: a message is appended in the caller's transaction. A crash before its commit leaves neither the user nor the
message, a crash after it both. This package never reaches Redis or a mail server.
"""
