"""The relay's steps: publish a batch, and recover messages whose publish lease or run lease has ended."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.messages.guards import Guard
from tests.model.messages.rows import Move, Step, back_to_pending, fault, finished, published, renewed
from tests.model.messages.state import (
    DEAD,
    DONE,
    IDLE,
    LISTED,
    MARKED,
    NOTED,
    PENDING,
    PUBLISHED,
    PUSHED,
    READ,
    RETURNED,
    RUNNING,
    TOOK,
    UNANSWERED,
    Config,
    Job,
    LeaseExpired,
    Missed,
    Redis,
    Relay,
    World,
    any_locked,
    awaited,
    in_time,
    locked,
)


def relay_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    phase = world.relays[number].phase
    if phase == IDLE:
        yield from take_batch_step(world, config, number)
        yield from begin_round_steps(world, config, number)
    elif phase == TOOK:
        yield from push_steps(world, config, number)
    elif phase in (PUSHED, UNANSWERED):
        yield from mark_published_steps(world, config, number)
    elif phase == MARKED:
        yield from commit_steps(world, config, number)
    else:
        yield from round_steps(world, config, number)


# Publish: one transaction on one connection, which holds the rows' locks from take_batch to its end.


def take_batch_step(world: World, config: Config, number: int) -> Iterator[Move]:
    batch = tuple(
        Job(message, row.generation)
        for message, row in enumerate(world.rows)
        if row.status == PENDING
        and (row.due or not config.keeps(Guard.TAKE_DUE))
        and not (config.keeps(Guard.LOCK_TAKE) and locked(world, message))
    )
    if batch:
        taken = world.relays[number]._replace(phase=TOOK, batch=batch)
        yield Step("take_batch", f"relay {number}"), world.with_relay(number, taken)


def push_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    pushed = push(world, relay.batch)
    knows = relay._replace(phase=PUSHED, epoch=world.redis.epoch)
    yield Step("push", who), pushed.with_relay(number, knows)
    yield Step("rollback", who, "Redis does not answer"), world.with_relay(number, at_rest(relay))
    if not world.faults:
        return
    if config.keeps(Guard.NO_PUSH_REPEAT):
        unanswered = relay._replace(phase=UNANSWERED)
        yield fault("push", who, "its reply is lost", pushed.with_relay(number, unanswered))
    else:
        twice = push(pushed, relay.batch)
        yield fault("push", who, "its reply is lost, the client sends it again", twice.with_relay(number, knows))


def push(world: World, batch: tuple[Job, ...]) -> World:
    """One MULTI. The ids carry the generations that take_batch read."""
    for job in batch:
        row = world.rows[job.message]
        if row.generation == job.generation and row.status in (PENDING, PUBLISHED):
            world = world.with_row(job.message, row._replace(seen=True))
    return world.with_jobs((*world.redis.jobs, *batch))


def mark_published_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    epoch = relay.epoch if config.keeps(Guard.EPOCH_IN_MULTI) else world.redis.epoch
    if relay.phase == UNANSWERED:
        yield Step("rollback", who, "the push was not answered"), world.with_relay(number, at_rest(relay))
    elif relay.connected:
        marked = relay._replace(phase=MARKED, epoch=epoch)
        yield Step("mark_published", who), world.with_relay(number, marked)
    elif config.keeps(Guard.ONE_CONNECTION):
        yield Step("rollback", who, "the connection is dead"), world.with_relay(number, at_rest(relay))
    elif not any_locked(world, relay.batch):
        after = mark_published(world, config, relay.batch, epoch).with_relay(number, at_rest(relay))
        yield Step("mark_published", who, "on a new connection"), after


def mark_published(world: World, config: Config, batch: tuple[Job, ...], epoch: int) -> World:
    for message, _ in batch:
        row = world.rows[message]
        unguarded = row.status != DONE and not config.keeps(Guard.MARK_STATUS_PENDING)
        if row.status == PENDING or unguarded:
            world = world.with_row(message, published(row, config, epoch))
    return world


def commit_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    undone = world.with_relay(number, at_rest(relay))
    if not relay.connected:
        yield Step("rollback", who, "the connection is dead"), undone
        return
    committed = mark_published(undone, config, relay.batch, relay.epoch)
    yield Step("commit", who), committed
    if world.faults:
        yield fault("commit", who, "its reply is lost, it was committed", committed)
        yield fault("commit", who, "its reply is lost, it was not committed", undone)


def at_rest(relay: Relay) -> Relay:
    return Relay(missed=relay.missed)


# Reap: running rows in one statement; published rows in a round of find_lease_expired, read_lists, what follows.


def begin_round_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    reaped = reap_running(world, config)
    if reaped is not world:
        yield Step("reap_running", who), reaped
    if not config.keeps(Guard.ROWS_BEFORE_LISTS):
        # The wrong order: `found` holds the whole list until the rows are read.
        listed = relay._replace(phase=LISTED, found=world.redis.jobs, epoch=world.redis.epoch)
        yield Step("read_lists", who), world.with_relay(number, listed)
    elif expired := find_lease_expired(world, config):
        yield Step("find_lease_expired", who), world.with_relay(number, relay._replace(phase=NOTED, expired=expired))


def reap_running(world: World, config: Config) -> World:
    for message, row in enumerate(world.rows):
        if row.status != RUNNING or not config.keeps(Guard.REAP_RUNNING):
            continue
        if not row.lease_over and config.keeps(Guard.REAP_RUNNING_LEASE):
            continue
        if world.grace and in_time(world, row.token) and config.keeps(Guard.REAP_RUNNING_GRACE):
            continue
        if row.attempt > config.max_retries and config.keeps(Guard.REAP_RUNNING_DEAD):
            world = world.with_row(message, finished(row, DEAD))
        else:
            world = world.with_row(message, back_to_pending(row, config, due=True))
    return world


def find_lease_expired(world: World, config: Config) -> tuple[LeaseExpired, ...]:
    epoch = world.redis.epoch
    return tuple(
        LeaseExpired(Job(message, row.generation), row.epoch)
        for message, row in enumerate(world.rows)
        if row.status == PUBLISHED
        and (
            (row.lease_over and config.keeps(Guard.PUBLISHED_LEASE))
            or (row.epoch != epoch and config.keeps(Guard.EPOCH_ON_ROW))
        )
    )


def round_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    relay = world.relays[number]
    who = f"relay {number}"
    if relay.phase == NOTED:
        judged = judge(world, config, relay.missed, relay.expired, world.redis)
        yield Step("read_lists", who), world.with_relay(number, judged)
    elif relay.phase == LISTED:
        listed = world.redis._replace(jobs=relay.found, epoch=relay.epoch)
        judged = judge(world, config, relay.missed, find_lease_expired(world, config), listed)
        yield Step("find_lease_expired", who), world.with_relay(number, judged)
    elif relay.phase == RETURNED:
        # A worker skips a popped id without its hash and says nothing: as good as not in the list.
        kept = tuple(job for job in world.redis.jobs if job not in relay.missing)
        yield Step("delete_orphans", who), world.with_jobs(kept).with_relay(number, at_rest(relay))
    elif any_locked(world, relay.found or relay.missing):
        return  # the SQL skips a row whose claim is undecided until the next round; here this round comes later
    elif relay.found:
        epoch = relay.epoch if config.keeps(Guard.EPOCH_IN_MULTI) else world.redis.epoch
        left = relay._replace(found=()) if relay.missing else at_rest(relay)
        yield Step("renew_found", who), renew_found(world, config, relay.found, epoch).with_relay(number, left)
    else:
        after, returned = return_missing(world, config, relay.missing)
        left = at_rest(relay)._replace(phase=RETURNED, missing=returned) if returned else at_rest(relay)
        yield Step("return_missing", who), after.with_relay(number, left)


def judge(
    world: World, config: Config, missed_before: tuple[Missed, ...], expired: tuple[LeaseExpired, ...], listed: Redis
) -> Relay:
    """The relay after it has compared the expired rows with the lists and the epoch of one MULTI."""
    found: list[Job] = []
    missing: list[Job] = []
    missed: list[Missed] = []
    before = {entry.job: entry for entry in missed_before}
    for job, row_epoch in expired:
        if job in listed.jobs and config.keeps(Guard.READ_LISTS):
            found.append(job)
            continue
        another_life = row_epoch != listed.epoch and config.keeps(Guard.EPOCH_ON_ROW)
        second_round = job in before and not (before[job].awaited and config.keeps(Guard.ROUNDS_APART))
        if another_life or second_round or not config.keeps(Guard.TWO_ROUNDS):
            missing.append(job)
        else:
            missed.append(before.get(job) or Missed(job, awaited(world, job.message)))
    if not found and not missing:
        return Relay(missed=tuple(missed))
    return Relay(phase=READ, found=tuple(found), missing=tuple(missing), epoch=listed.epoch, missed=tuple(missed))


def renew_found(world: World, config: Config, found: tuple[Job, ...], epoch: int) -> World:
    for message, generation in found:
        row = world.rows[message]
        if row.status == DONE or (row.status != PUBLISHED and config.keeps(Guard.RENEW_STATUS)):
            continue
        if row.generation != generation and config.keeps(Guard.RENEW_GENERATION):
            continue
        world = world.with_row(message, renewed(row, config, epoch))
    return world


def return_missing(world: World, config: Config, missing: tuple[Job, ...]) -> tuple[World, tuple[Job, ...]]:
    """The world after the UPDATE, and the jobs whose rows it returned."""
    returned: list[Job] = []
    for job in missing:
        row = world.rows[job.message]
        if row.status == DONE or (row.status != PUBLISHED and config.keeps(Guard.RETURN_STATUS)):
            continue
        if row.generation != job.generation and config.keeps(Guard.RETURN_GENERATION):
            continue
        world = world.with_row(job.message, back_to_pending(row, config, due=True))
        returned.append(job)
    return world, tuple(returned)
