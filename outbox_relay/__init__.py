"""The relay: it moves messages from the outbox to RQ's queues in Redis, and recovers what Redis or a worker lost.

Guarantee: a committed message is pushed at least once, and is looked up until a consumer's own commit finishes it.

After a crash: before the push, rows are pending as before. Between push and commit, the row of a pushed job is still
pending, and the same job id is pushed again. After the commit, the row is published with a lease; the reaper of any
relay looks its job up when the lease is over or the epoch of Redis has changed. Row locks are held during the push, and
PostgreSQL ends them within seconds if the process freezes. The relay never reads a payload.
"""
