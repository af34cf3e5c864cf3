"""The consumer: it takes messages from RQ's queues, sends their mails, and records the outcomes in PostgreSQL.

Guarantee: only the process that holds a message's claim in PostgreSQL works on it, and only a commit with the claim's
token finishes it. After a crash before the claim, the relay finds the published row. After a later crash, the relay
reaps the running row when its lease is over, with one attempt spent. Only a crash after the mail server's answer
can cause a second copy, with the same Message-ID and the same link. An unavailable server spends no attempt.
"""
