"""Servers for a laptop, the tests and the benchmark: PostgreSQL and Redis from wheels, and a mail catcher.

Guarantees: everything listens on 127.0.0.1 alone. Of this machine's users only the one who started the servers can use
PostgreSQL and Redis and see the mails, but anyone can send a mail. No existing folder's permissions change, and no
system user is created. A server ends with the process that started it. `kill()` returns when nothing of the server is
left, so it can be started again at once. A crash of this package leaves data folders that the next start recovers, and
at worst an unused folder named `*.part`.

The product never imports it.
"""
