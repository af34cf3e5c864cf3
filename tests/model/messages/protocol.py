"""The protocol as a set of named steps between frozen worlds.

What is modelled: one or two messages, up to two relays and two consumers. A world is a frozen tuple; `steps` lists
every step that can happen in it, of any process, each with the world after it. What can be in progress between two
steps is where a process can die. The names of the steps are those of the functions that hold the SQL, or of the
commands to Redis and the mail server:

    relay     take_batch, push, mark_published, commit, rollback
    reaper    reap_running; and in rounds: find_lease_expired, read_lists, renew_found, return_missing, delete_orphans
    consumer  pop, claim, find_own_claim, prepare (only where nobody needs the mail any more), send, renew_claim, and
              one of ack, fail, release, discard_claims
    operator  retry, discard
    time      becomes_due, lease_ends, deadline_passes (for the answer to the last dot), commit_lands, commit_fails (a
              COMMIT that lost its client is decided)

What can go wrong (a run allows a bounded number of faults, that bounds the worlds): a relay or a consumer dies, or
freezes; Redis is emptied, restarted with its data, or restored from an older state; PostgreSQL goes away and
comes back; the reply to a push or to a commit is lost, with the commit done or not; the mail server's answer is
lost or late, or it is away before the last dot. That it refuses (4xx, 5xx) is no fault: it may do so at any attempt.

How time is abstracted. There is no clock: whatever may take long may take any time, and a process between two steps
may rest as long as it likes. Two rules bound that, and both stand in `settle`:

- A lease that is set can be over at any later moment. But a claim's lease ends under a living consumer only if that
  consumer freezes past it (a fault), or PostgreSQL was away: its deadlines fit its lease, and who waits longer for
  the mail server's answer renews the lease first.
- A reaper's two rounds are further apart than a pop-to-claim takes: a consumer that had popped before the first
  claims before the second, unless it dies or freezes (a fault). What follows then is a wasted return to pending
  and nothing worse: its claim still finds the row, or finds it taken. While PostgreSQL is away nobody claims, so
  that an outage counts as a fault here too. And directly after an outage reap_running waits until every consumer
  that is in time has said how its claim ended.

The check of the lease and the last dot are one step: freezing between them counts as freezing after the
dot, which is one of the causes that the promise names for a second mail.

What is left out, and why that is sound:

- A transaction of one statement is one step, for its lock does not outlive it. The publish transaction and a claim
  whose commit is undecided do hold locks here; locks of many rows are in locks.py.
- The list has no order and a consumer may pop any of it. A pop whose reply is lost is the death of its consumer.
- "Older data" is any single job of any generation so far, even one that was never pushed: more than can happen.
- Redis' lives are numbered and never return. (Where an old master with its old run_id takes over again, its life
  would; the row's lease then finds what the epoch hides.)
- A process that dies is there again at once, knowing nothing. Queues, backoff (a message is due or not yet), the
  breaker, batches that do not take all that is due, and pruning change nothing that is asked here.
- A relay does one thing at a time; that one publishes while another reaps is covered by there being two.
- find_lease_expired compares rows with the epoch of that moment. It is a moment older in truth, so that a sweep may
  note too much or too little: too much does no harm (read_lists judges by what it reads itself), too little waits for
  the next sweep.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.messages.consumer import consumer_steps
from tests.model.messages.environment import fault_steps, operator_steps, time_steps
from tests.model.messages.relay import relay_steps
from tests.model.messages.rows import Move
from tests.model.messages.state import IDLE, Config, World, settle


def steps(world: World, config: Config, *, twins: bool = True) -> Iterator[Move]:
    """Every step that can happen now, each with the world after it.

    twins: False leaves out what a process can do that is in the same state as the one before it.
    """
    for step, after in _unsettled_steps(world, config, twins=twins):
        yield step, settle(after)


def _unsettled_steps(world: World, config: Config, *, twins: bool) -> Iterator[Move]:
    for number, relay in enumerate(world.relays):
        if twins or number == 0 or relay != world.relays[number - 1]:
            yield from relay_steps(world, config, number)
    for number, consumer in enumerate(world.consumers):
        # With a job in hand a consumer differs from its twin: by the row's token, by who waits for it.
        if twins or number == 0 or consumer.phase != IDLE or world.consumers[number - 1].phase != IDLE:
            yield from consumer_steps(world, config, number)
    yield from time_steps(world, config)
    if world.orders:
        yield from operator_steps(world, config)
    if world.faults:
        yield from fault_steps(world)
