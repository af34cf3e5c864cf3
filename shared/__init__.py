"""What the three rooms share: settings, message types, the outbox's INSERT, models, link signing, logging.

Guarantee: a message appended here belongs to the caller's transaction. A crash before that commit leaves neither the
user nor the message, a crash after it leaves both. This package never reaches Redis or a mail server.
"""
