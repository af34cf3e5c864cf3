"""The frozen state of the model: rows, Redis, relays and consumers at one moment.

Every record is a tuple, so that a whole world can be the key of a dictionary, and every field can be compared,
so that identical relays and identical consumers can be put in order (see `canonical`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.model.messages.guards import Guard

# Statuses and phases are plain strings: compared and hashed millions of times, and readable in a trace.
PENDING: Final = "pending"
PUBLISHED: Final = "published"
RUNNING: Final = "running"
DONE: Final = "done"
DEAD: Final = "dead"
DISCARDED: Final = "discarded"

IDLE: Final = "idle"

# What a relay is in the middle of.
TOOK: Final = "took"  # take_batch: rows locked
PUSHED: Final = "pushed"  # push answered
UNANSWERED: Final = "unanswered"  # push sent, its reply lost: only a rollback is left
MARKED: Final = "marked"  # mark_published sent, not committed
NOTED: Final = "noted"  # find_lease_expired has noted rows
LISTED: Final = "listed"  # the lists were read before the rows: only without Guard.ROWS_BEFORE_LISTS
READ: Final = "read"  # the lists are read: it knows what it found and what is missing
RETURNED: Final = "returned"  # return_missing committed, orphaned hashes not yet deleted
IN_TRANSACTION: Final = frozenset({TOOK, PUSHED, UNANSWERED, MARKED})

# What a consumer is in the middle of.
POPPED: Final = "popped"  # has the job's id, has not claimed
ASKING: Final = "asking"  # the claim's commit was not answered
CLAIMED: Final = "claimed"  # before the last dot
ACCEPTED: Final = "accepted"  # the mail server took it: ack comes next
REFUSED: Final = "refused"  # 4xx, silence after the dot, too late to send: fail comes next
REJECTED: Final = "rejected"  # 5xx: fail comes next, dead at once
OUTAGE: Final = "outage"  # no mail server before the dot: release comes next
UNWANTED: Final = "unwanted"  # nobody needs the mail any more, and nothing was sent: discard_claims comes next
OVERDUE: Final = "overdue"  # the dot is sent, and no answer came before the deadline: renew the lease or give up
WAITING: Final = "waiting"  # waits for the answer under a renewed lease
UNRENEWED: Final = "unrenewed"  # waits past the lease that it has: only without a guard
BEFORE_CLAIM: Final = frozenset({POPPED, ASKING})
ENDING: Final = frozenset({ACCEPTED, REFUSED, REJECTED, OUTAGE, UNWANTED})
UNANSWERED_DOT: Final = frozenset({OVERDUE, WAITING, UNRENEWED})
HOLDING: Final = ENDING | UNANSWERED_DOT | {CLAIMED}

NO_EPOCH: Final = -1
NO_TOKEN: Final = -1
TOKEN_OF_THE_DEAD: Final = -2  # the claim's consumer died
FORGOTTEN_TOKEN: Final = -3  # the claim's consumer lives and works on something else


class Job(NamedTuple):
    """The RQ job id `outbox-<message>-g<generation>`."""

    message: int
    generation: int


class Row(NamedTuple):
    """One row of outbox. The last four fields are history for the properties; no step reads them."""

    status: str = PENDING
    generation: int = 0
    attempt: int = 0
    due: bool = True
    token: int = NO_TOKEN  # the number of the consumer whose present claim this is
    lease_over: bool = False
    epoch: int = NO_EPOCH  # the life of Redis that its job was pushed into
    doubt: int = NO_TOKEN  # the token of a claim whose COMMIT the server has not decided; it holds the row's lock
    mails: int = 0  # accepted by the mail server in this series of attempts
    mail_owed: bool = True  # False once a mail is accepted, True again when something excuses a second one
    seen: bool = False  # this generation's job has been in Redis in Redis' present life
    return_excused: bool = False  # a fault has touched this generation's job


class Redis(NamedTuple):
    """The queue's list, whose order does not matter here, and which life of Redis this is."""

    jobs: tuple[Job, ...] = ()
    epoch: int = 0


class LeaseExpired(NamedTuple):
    """What find_lease_expired notes of a row."""

    job: Job
    epoch: int


class Missed(NamedTuple):
    """A job that was missing in one round.

    awaited: the consumers (as bits) that had popped the message before that round, are not frozen and have
    not claimed yet. At 0 a further round counts as "further apart than a pop-to-claim takes".
    """

    job: Job
    awaited: int


class Relay(NamedTuple):
    """One process, which does one thing at a time: publish or reap."""

    phase: str = IDLE
    connected: bool = True  # False: the server has ended the transaction and the relay does not know it yet
    batch: tuple[Job, ...] = ()
    expired: tuple[LeaseExpired, ...] = ()
    found: tuple[Job, ...] = ()
    missing: tuple[Job, ...] = ()
    epoch: int = NO_EPOCH  # as read in the latest MULTI
    missed: tuple[Missed, ...] = ()  # kept from round to round, lost with the process


class Consumer(NamedTuple):
    """One process with at most one job in hand."""

    phase: str = IDLE
    job: Job = Job(-1, -1)  # after the claim the generation is 0: nothing asks for it any more
    late: bool = False  # has been frozen past the longest pop-to-claim, or past its lease


class World(NamedTuple):
    """Everything at one moment."""

    # Built by position in the three methods, which is twice as fast as _replace.
    rows: tuple[Row, ...]
    redis: Redis
    relays: tuple[Relay, ...]
    consumers: tuple[Consumer, ...]
    faults: int  # that may still happen in this run
    orders: int  # that the operator may still give in this run
    grace: bool = False  # PostgreSQL has just come back: reap_running leaves time for what is due to be said

    def with_row(self, message: int, row: Row) -> World:
        rows = (*self.rows[:message], row, *self.rows[message + 1 :])
        return World(rows, *self[1:])

    def with_relay(self, number: int, relay: Relay) -> World:
        relays = (*self.relays[:number], relay, *self.relays[number + 1 :])
        return World(self.rows, self.redis, relays, *self[3:])

    def with_consumer(self, number: int, consumer: Consumer) -> World:
        consumers = (*self.consumers[:number], consumer, *self.consumers[number + 1 :])
        return World(self.rows, self.redis, self.relays, consumers, *self[4:])

    def with_jobs(self, jobs: tuple[Job, ...]) -> World:
        return self._replace(redis=Redis(tuple(sorted(jobs)), self.redis.epoch))


class Config(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    messages: int = 1
    relays: int = 2
    consumers: int = 2
    max_retries: int = 1
    faults: int = 1
    orders: int = 0
    unwanted: bool = True  # whether a worker may find that nobody needs the mail any more
    without: frozenset[Guard] = frozenset()

    def keeps(self, guard: Guard) -> bool:
        return guard not in self.without

    def initial(self) -> World:
        """The signups have committed: every message is pending, nothing else has happened."""
        return World(
            rows=(Row(),) * self.messages,
            redis=Redis(),
            relays=(Relay(),) * self.relays,
            consumers=(Consumer(),) * self.consumers,
            faults=self.faults,
            orders=self.orders,
        )


def locked(world: World, message: int) -> bool:
    """Return whether a transaction in progress holds the row's lock: a relay's batch, or a claim not yet decided."""
    if world.rows[message].doubt != NO_TOKEN:
        return True
    for relay in world.relays:
        if relay.phase in IN_TRANSACTION and relay.connected:
            for job in relay.batch:
                if job.message == message:
                    return True
    return False


def any_locked(world: World, jobs: tuple[Job, ...]) -> bool:
    return any(locked(world, job.message) for job in jobs)


def in_time(world: World, token: int) -> bool:
    """Return whether the claim's consumer lives, still works on it and has not been frozen past its lease."""
    return token >= 0 and not world.consumers[token].late


def awaited(world: World, message: int) -> int:
    """The consumers (as bits) that have popped the message, are not frozen and have not claimed yet."""
    bits = 0
    for number, consumer in enumerate(world.consumers):
        if consumer.phase in BEFORE_CLAIM and consumer.job.message == message and not consumer.late:
            bits |= 1 << number
    return bits


def settle(world: World) -> World:
    """What follows from a step without anybody doing anything: the two rules about time.

    A consumer that has claimed, has died or is frozen is no longer awaited by a reaper's second round. The wait
    of reap_running is over when every consumer in time has said how its claim ended. What a later round cannot
    use (its job's life is over) is forgotten, to keep the worlds few.
    """
    for number, relay in enumerate(world.relays):
        if relay.missed:
            missed = tuple(
                Missed(entry.job, entry.awaited & awaited(world, entry.job.message))
                for entry in relay.missed
                if world.rows[entry.job.message].status == PUBLISHED
                and world.rows[entry.job.message].generation == entry.job.generation
            )
            if missed != relay.missed:
                world = world.with_relay(number, relay._replace(missed=missed))
    if world.grace and not any(
        (consumer.phase in HOLDING or consumer.phase == ASKING) and not consumer.late for consumer in world.consumers
    ):
        world = world._replace(grace=False)
    return world


def canonical(world: World) -> World:
    """The same world with twins in a fixed order: it does not matter which of two identical processes did a step."""
    first = _with_relays_in_order(world)
    consumers = world.consumers
    if len(consumers) != 2 or consumers[0] < consumers[1] or consumers[0].phase == consumers[1].phase == IDLE:
        return first
    # Consumers are referred to by their numbers: as tokens, and as bits in what a reaper waits for.
    other = {0: 1, 1: 0}
    other_bits = (0b00, 0b10, 0b01, 0b11)
    second = _with_relays_in_order(
        world._replace(
            rows=tuple(
                row._replace(token=other.get(row.token, row.token), doubt=other.get(row.doubt, row.doubt))
                if row.token >= 0 or row.doubt >= 0
                else row
                for row in world.rows
            ),
            relays=tuple(
                relay._replace(missed=tuple(Missed(entry.job, other_bits[entry.awaited]) for entry in relay.missed))
                if relay.missed
                else relay
                for relay in world.relays
            ),
            consumers=(consumers[1], consumers[0]),
        )
    )
    return min(first, second) if consumers[0] == consumers[1] else second


def _with_relays_in_order(world: World) -> World:
    relays = world.relays
    if len(relays) == 2 and relays[0] > relays[1]:
        return world._replace(relays=(relays[1], relays[0]))
    return world
