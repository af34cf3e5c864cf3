"""Steps that neither relay nor consumer takes: time, the operator, and faults that are not the answer to a step."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.messages.guards import Guard
from tests.model.messages.rows import OPERATOR, TIME, Move, Step, back_to_pending, claimed, fault, finished
from tests.model.messages.state import (
    ACCEPTED,
    ASKING,
    BEFORE_CLAIM,
    DEAD,
    DISCARDED,
    DONE,
    ENDING,
    IDLE,
    IN_TRANSACTION,
    NO_TOKEN,
    OVERDUE,
    PENDING,
    PUBLISHED,
    RUNNING,
    TOKEN_OF_THE_DEAD,
    UNANSWERED_DOT,
    UNRENEWED,
    Config,
    Consumer,
    Job,
    Redis,
    Relay,
    Row,
    World,
    in_time,
    locked,
)


def time_steps(world: World, config: Config) -> Iterator[Move]:
    for message, row in enumerate(world.rows):
        who = f"message {message}"
        if row.status == PENDING and not row.due:
            yield Step("becomes_due", who, kind=TIME), world.with_row(message, row._replace(due=True))
        if not row.lease_over and lease_may_end(world, row):
            yield Step("lease_ends", who, kind=TIME), world.with_row(message, row._replace(lease_over=True))
        if row.doubt != NO_TOKEN:
            yield Step("commit_lands", who, kind=TIME), world.with_row(message, claimed(row, config, row.doubt))
            yield Step("commit_fails", who, kind=TIME), world.with_row(message, row._replace(doubt=NO_TOKEN))


def lease_may_end(world: World, row: Row) -> bool:
    """A published row's lease at any time; a claim's only under a consumer that is gone, late or cut off."""
    if row.status == PUBLISHED:
        return True
    if row.status != RUNNING:
        return False
    if not in_time(world, row.token):
        return True
    # PostgreSQL was away for longer than the lease: who needs it to go on has waited, and is not to blame.
    phase = world.consumers[row.token].phase
    return phase == UNRENEWED or (world.grace and (phase in ENDING or phase in (ASKING, OVERDUE)))


def operator_steps(world: World, config: Config) -> Iterator[Move]:
    ordered = world._replace(orders=world.orders - 1)
    for message, row in enumerate(world.rows):
        if row.status == DONE or locked(world, message):
            continue
        if row.status == DEAD or not config.keeps(Guard.RETRY_STATUS):
            again = back_to_pending(row, config, due=True)._replace(attempt=0, mails=0)
            yield Step("retry", "operator", f"m{message}", OPERATOR), ordered.with_row(message, again)
        if row.status in (DEAD, PENDING) or not config.keeps(Guard.DISCARD_STATUS):
            gone = finished(row, DISCARDED)
            yield Step("discard", "operator", f"m{message}", OPERATOR), ordered.with_row(message, gone)


def fault_steps(world: World) -> Iterator[Move]:
    for number in range(len(world.relays)):
        yield from relay_faults(world, number)
    for number, consumer in enumerate(world.consumers):
        if consumer.phase != IDLE:
            yield from consumer_faults(world, number)
    yield from redis_faults(world)
    yield from postgres_faults(world)


def relay_faults(world: World, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    if relay != Relay():
        yield fault("crash", who, "", world.with_relay(number, Relay()))
    if relay.connected and relay.phase in IN_TRANSACTION:
        cut = relay._replace(connected=False)
        yield fault("stand_still", who, "PostgreSQL ends its transaction", world.with_relay(number, cut))


def consumer_faults(world: World, number: int) -> Iterator[Move]:
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = struck(world.rows[message], consumer, number)
    taken = row._replace(mails=row.mails + 1, mail_owed=True)
    may_be_taken = consumer.phase in UNANSWERED_DOT and row.token == number and not consumer.late
    if not consumer.late:
        late = consumer._replace(late=True)
        yield fault("stand_still", who, "past its time", world.with_row(message, row).with_consumer(number, late))
        if may_be_taken:
            answered = world.with_row(message, taken).with_consumer(number, late._replace(phase=ACCEPTED))
            yield fault("stand_still", who, "past its time, the answer comes meanwhile", answered)
    yield fault("crash", who, "", world.with_row(message, left_by(row, number)).with_consumer(number, Consumer()))
    if may_be_taken:
        dead = world.with_row(message, left_by(taken, number)).with_consumer(number, Consumer())
        yield fault("crash", who, "its mail is accepted all the same", dead)


def left_by(row: Row, number: int) -> Row:
    """The row when the consumer is gone that may hold it."""
    if row.token == number:
        row = row._replace(token=TOKEN_OF_THE_DEAD)
    if row.doubt == number:
        row = row._replace(doubt=TOKEN_OF_THE_DEAD)
    return row


def struck(row: Row, consumer: Consumer, number: int) -> Row:
    """The history of a row whose consumer dies or freezes: what that is a cause of."""
    if consumer.phase in BEFORE_CLAIM and row.status in (PENDING, PUBLISHED):
        return row._replace(return_excused=row.return_excused or consumer.job.generation == row.generation)
    if consumer.phase == ACCEPTED and row.token == number:
        return row._replace(mail_owed=True)
    return row


def redis_faults(world: World) -> Iterator[Move]:
    yield fault("redis_wiped", "redis", "", new_life(world, ()))
    if world.redis.jobs:
        yield fault("redis_restarted", "redis", "with its data", new_life(world, world.redis.jobs))
    for message, row in enumerate(world.rows):
        for generation in range(row.generation + 1):
            older = Job(message, generation)
            if world.redis.jobs != (older,):
                remark = f"with older data: m{message}-g{generation}"
                yield fault("redis_restored", "redis", remark, new_life(world, (older,)))


def new_life(world: World, jobs: tuple[Job, ...]) -> World:
    rows = tuple(
        row._replace(return_excused=row.return_excused or row.seen, seen=Job(message, row.generation) in jobs)
        if row.status in (PENDING, PUBLISHED)
        else row
        for message, row in enumerate(world.rows)
    )
    return world._replace(rows=rows, redis=Redis(jobs, world.redis.epoch + 1))


def postgres_faults(world: World) -> Iterator[Move]:
    """PostgreSQL goes away and comes back, any time later: its transactions are gone, leases may have run out."""
    cut_off = tuple(
        relay._replace(connected=False) if relay.phase in IN_TRANSACTION else relay for relay in world.relays
    )
    if cut_off == world.relays and all(consumer.phase == IDLE for consumer in world.consumers):
        return
    # Nobody could claim meanwhile: the rounds before and after lie apart, and yet prove nothing.
    relays = tuple(
        relay._replace(missed=tuple(entry._replace(awaited=0) for entry in relay.missed)) for relay in cut_off
    )
    after = world._replace(relays=relays, grace=True)
    for number, consumer in enumerate(world.consumers):
        if consumer.phase in BEFORE_CLAIM:
            message = consumer.job.message
            after = after.with_row(message, struck(after.rows[message], consumer, number))
    yield fault("postgres_outage", "postgres", "", after)
