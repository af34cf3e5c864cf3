"""Finds out what is wrong with an installation: each check looks at one thing and says what mends it.

Nothing is changed by it, in PostgreSQL, in Redis or at the mail server; the schema is compared inside a transaction
that is rolled back.
"""
