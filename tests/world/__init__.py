"""The service on servers that other people set up: Debian's PostgreSQL, Redis, PgBouncer and Postfix.

`make world` runs them, `make test` never does.
"""
