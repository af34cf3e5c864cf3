"""Chaos: signups over HTTP while everything that the service stands on is killed, stopped, emptied or made to lie.

`python -m tests.chaos` starts all of it on free ports of 127.0.0.1 in a folder of its own, draws its faults from a
seed, waits for quiet, and holds what people were told against what was committed and what arrived. What is believed:
PostgreSQL's tables, the mails in the catcher's folder, the answers that clients got, and a trigger's record of every
change of a message. What the service says about itself is not asked.
"""
