"""A model of the protocol, every reachable state of which is explored.

protocol.py says what is modelled and what is left away, and lists the steps that are possible in a world; the steps
themselves stand in relay.py, consumer.py and environment.py, the state in state.py, the clauses that can be left
out in guards.py. properties.py says what must hold, explore.py visits every world and tells how it got there, and
locks.py looks at row locks alone. `python -m tests.model --help` explores larger worlds than the tests do.
"""
