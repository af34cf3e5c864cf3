"""Servers for a laptop, the tests and the benchmark: PostgreSQL and Redis from wheels, and a mail catcher.

Guarantees: everything listens on 127.0.0.1 alone; of this machine's users only the one who started them can use
PostgreSQL and Redis and see the mails, while anybody can hand one in; no existing folder's permissions change and no
system user is made; what was started dies with the process that started it; `kill()` returns once nothing of the server
is left, so that it can be started again at once. A crash of this package leaves data folders that the next start
recovers, and at worst a folder named `*.part` that nobody reads.

The product never imports it.
"""
