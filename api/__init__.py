"""The HTTP API: it takes signups, verifies addresses, and writes to PostgreSQL alone.

Guarantee: a 201 means that user and message are committed, in one statement; any other answer to a signup but 503
means that this request has committed neither. Redis and the mail server are never touched. What a crash leaves behind:

- before the statement's commit: nothing, the client got no answer and repeats;
- between the commit and the answer: the user and the message. The mail goes out, a repetition is told 409, or with an
  Idempotency-Key the answer that it missed: its outcome was committed too. A 503 may hide the same, and says so;
- between the answer and the doorbell: nothing is missing, the relay finds the message at its next poll;
- while a link is verified: the record, the user and the welcome message, all of them or none. The link works again.
"""

from api.app import create_app

__all__ = ["create_app"]
