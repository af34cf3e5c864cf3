"""The HTTP API: accepts signups, verifies email addresses, and writes only to PostgreSQL.

Guarantee: a 201 means that the user and the message are committed, in one statement. Any other response to a signup
except 503 means that this request has committed neither. The API never connects to Redis or to the mail server. What a
crash leaves behind:

- before the statement's commit: nothing. The client got no response and repeats the request;
- between the commit and the response: the user and the message. The mail is sent. A repeated signup gets 409, or with
  an Idempotency-Key the response that it missed, because its outcome was committed too. A 503 may hide the same, and
  says so;
- between the response and the NOTIFY: nothing is missing. The relay finds the message at its next poll;
- while a link is verified: the record, the user and the welcome message, either all or none. The link can be used
  again.
"""

from api.app import create_app

__all__ = ["create_app"]
