"""The checks of `python -m outbox_relay doctor`: each checks one thing, and says how to fix it.

They change nothing in PostgreSQL, in Redis or at the mail server. The schema is compared inside a transaction that is
rolled back.
"""
