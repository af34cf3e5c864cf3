"""Chaos: signups over HTTP while everything that the service depends on is killed, stopped, emptied or made to fail.

`python -m tests.chaos` starts all of it on free ports of 127.0.0.1 in a folder of its own, draws its faults from a
seed, waits until nothing is left to do, and compares the answers that clients got with what was committed and what
arrived. Beside the mails it appends messages of three tasks of its own: effects in the database, a destination that
answers after nine seconds, and one that is always down. The evidence is PostgreSQL's tables, the mails in the catcher's
folder, what the slow destination was asked, the clients' answers, and a trigger's record of every change of a message.
The service's own logs and metrics are not used.
"""
