"""Appends with one dedup key, claims and an operator, as a set of named steps between frozen worlds.

    appender  append (waits for an append with the same key that is not committed), commit, rollback
    worker    claim (waits for an append that has locked the row), done, release, fail (at last)
    operator  discard, retry (a dead letter)

A row that is not committed is not there for anybody else; PostgreSQL has the second append wait for its end. The life
of a message is messages/: publishing changes nothing here, a waiting row may be pending or published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.dedup.state import (
    APPENDED,
    AT_WORK,
    COMMITTED,
    DEAD,
    DISCARDED,
    DONE,
    IDLE,
    NOBODY,
    OVER,
    READ,
    RELEASED,
    ROLLED_BACK,
    RUNNING,
    TO_APPEND,
    WAITING,
    Appender,
    Change,
    DedupConfig,
    DedupGuard,
    DedupStep,
    DedupWorker,
    DedupWorld,
    KeyedRow,
    Move,
)
from tests.model.search import Found, search

Check = Callable[[DedupWorld, DedupStep, DedupWorld, DedupConfig], bool]


def explore_dedup(config: DedupConfig, checks: dict[str, Check]) -> Found[DedupWorld]:
    """Visit every world that can be reached."""

    def with_config(check: Check) -> Callable[[DedupWorld, DedupStep, DedupWorld], bool]:
        return lambda before, step, after: check(before, step, after, config)

    return search(
        config.initial(),
        lambda world: dedup_steps(world, config),
        {text: with_config(check) for text, check in checks.items()},
    )


def dedup_steps(world: DedupWorld, config: DedupConfig) -> Iterator[Move]:
    for number, appender in enumerate(world.appenders):
        if appender.phase == TO_APPEND:
            yield from _append_steps(world, config, number)
        elif appender.phase == APPENDED and appender.change is not None:
            yield _commit(world, config, number, appender.change)
            gone = Appender(ROLLED_BACK)
            yield DedupStep("rollback", _who(number), is_own=False), world.with_appender(number, gone)
    yield from _worker_steps(world, config)
    if world.orders:
        yield from _operator_steps(world, config)


def _append_steps(world: DedupWorld, config: DedupConfig, number: int) -> Iterator[Move]:
    who = _who(number)
    due = config.dues[number]
    is_unique = config.keeps(DedupGuard.UNIQUE)
    row = _waiting(world, config) if is_unique else None

    def appended(remark: str, change: Change) -> Move:
        return DedupStep("append", who, remark), world.with_appender(number, Appender(APPENDED, change))

    others = [each.change for each in world.appenders if each.change is not None and each.change.has_key]
    if is_unique and any(change.row == NOBODY or change.locks for change in others):
        # It waits for the end of the first one, or gives that up.
        yield appended("without the key", Change(NOBODY, due, has_key=False))
    elif row is None:
        yield appended("a row of its own", Change(NOBODY, due))
    elif config.keeps(DedupGuard.APPEND_UPDATES):
        yield appended(f"to row {row}", Change(row, due))
    else:
        yield appended(f"row {row} is there", Change(row, due, locks=False))


def _waiting(world: DedupWorld, config: DedupConfig) -> int | None:
    """The row with the same key in the unique index."""
    for row, each in enumerate(world.rows):
        if each.has_key and each.status not in OVER:
            return row
        if each.status in (RUNNING, RELEASED) and not config.keeps(DedupGuard.CLAIM_FREES_KEY):
            return row
    return None


def _commit(world: DedupWorld, config: DedupConfig, number: int, change: Change) -> Move:
    """What the transaction has written can be seen by work that begins from now on."""
    data = world.commits
    after = world._replace(commits=data + 1).with_appender(number, Appender(COMMITTED, None, data))
    if change.row == NOBODY:
        row = KeyedRow(data=data, due=change.due, has_key=change.has_key)
        return DedupStep("commit", _who(number)), after._replace(rows=(*after.rows, row))
    row = world.rows[change.row]
    if change.locks:
        newer = data if config.keeps(DedupGuard.NEWER_PAYLOAD) else row.data
        due = min(row.due, change.due) if config.keeps(DedupGuard.EARLIER_DUE) else change.due
        after = after.with_row(change.row, row._replace(data=newer, due=due))
    elif row.status in (WAITING, RELEASED):
        after = after.with_row(change.row, row._replace(data=data))
    return DedupStep("commit", _who(number)), after


def _worker_steps(world: DedupWorld, config: DedupConfig) -> Iterator[Move]:
    phase, number, data = world.worker
    if phase == IDLE:
        for each, row in enumerate(world.rows):
            if row.status not in (WAITING, RELEASED):
                continue
            if not config.keeps(DedupGuard.CLAIM_READS):
                read = DedupWorker(READ, each, row.data)
                yield DedupStep("read", f"row {each}"), world._replace(worker=read)
            elif not world.locked(each) or not config.keeps(DedupGuard.CLAIM_WAITS):
                yield _claim(world, config, each, row.data)
    elif phase == READ:
        if world.rows[number].status not in (WAITING, RELEASED):
            yield DedupStep("claim", f"row {number}", "0 rows"), world._replace(worker=DedupWorker())
        elif not world.locked(number):
            yield _claim(world, config, number, data)
    else:
        row = world.rows[number]
        free = world._replace(worker=DedupWorker())
        served = free._replace(served=free.served | set(range(data + 1)))
        yield DedupStep("done", f"row {number}"), served.with_row(number, row._replace(status=DONE))
        has_key = row.has_key or not config.keeps(DedupGuard.FREED_FOR_GOOD)
        if not has_key or row.has_key or _waiting(world, config) is None:
            released = row._replace(status=RELEASED, has_key=has_key)
            yield DedupStep("release", f"row {number}"), free.with_row(number, released)
        yield DedupStep("fail", f"row {number}", "at last"), free.with_row(number, row._replace(status=DEAD))


def _claim(world: DedupWorld, config: DedupConfig, number: int, data: int) -> Move:
    row = world.rows[number]
    claimed = row._replace(status=RUNNING, has_key=not config.keeps(DedupGuard.CLAIM_FREES_KEY))
    at_work = world._replace(worker=DedupWorker(AT_WORK, number, data))
    return DedupStep("claim", f"row {number}", f"reads {data}"), at_work.with_row(number, claimed)


def _operator_steps(world: DedupWorld, config: DedupConfig) -> Iterator[Move]:
    ordered = world._replace(orders=world.orders - 1)
    for number, row in enumerate(world.rows):
        if row.status in (WAITING, RELEASED, DEAD) and not world.locked(number):
            # What was appended so far is not wanted any more.
            served = ordered._replace(served=ordered.served | set(range(row.data + 1)))
            gone = served.with_row(number, row._replace(status=DISCARDED))
            yield DedupStep("discard", f"row {number}", is_own=False), gone
        if row.status == DEAD:
            has_key = row.has_key or not config.keeps(DedupGuard.FREED_FOR_GOOD)
            again = ordered.with_row(number, row._replace(status=RELEASED, has_key=has_key))
            yield DedupStep("retry", f"row {number}", is_own=False), again


def _who(number: int) -> str:
    return f"appender {number}"
