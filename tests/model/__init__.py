"""Models of the service, every reachable state of which is explored.

messages/ is the protocol from the outbox to the mail. Its protocol.py says what is modelled and what is left out, and
lists the steps that are possible in a world; the steps themselves are in relay.py, consumer.py and environment.py, the
state in state.py, the clauses that can be left out in guards.py, and what must hold in properties.py. explore.py visits
every world of it and describe.py prints how it was reached. messages/locks.py models the row locks alone.

policy/ is a model of outages by policy, accounts/ one of accounts that are not verified yet, destinations/ of several
destinations with their breakers, pauses, places and limits, handlers/ of `Done()` and of `handle`, and dedup/ of dedup
keys; search.py visits their worlds. `python -m tests.model --help` explores larger worlds than the tests do.
"""
