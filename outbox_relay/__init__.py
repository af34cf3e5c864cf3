"""Moves messages from the outbox onto RQ's queues in Redis, and brings back those that Redis lost.

Guarantee: a committed message is pushed at least once and goes on being looked for until a consumer's own commit
finishes it. What a crash leaves behind: before the push, pending rows as they were; between push and commit, a job
whose row is still pending, so that the same job id is pushed again; after the commit, a published row with a lease,
which the reaper of any relay looks for in Redis when the lease is over or Redis has begun another life. A row lock is
held across the push; PostgreSQL ends it within seconds if this process freezes. A payload is never read here.
"""
