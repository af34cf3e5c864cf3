"""Takes messages that the relay announced, does what they ask for, and records what came of it.

Guarantee: a message is worked on by whoever holds its claim in PostgreSQL, and only a commit that carries the claim's
token finishes it. What a crash leaves behind: before the claim, a published row that the relay looks for; after it, a
running row that the relay takes back when the lease is over, one attempt spent; after the mail server's answer the
same, and there alone a second copy can be sent: with the same Message-ID and the same link. What is unreachable spends
no attempt.
"""
