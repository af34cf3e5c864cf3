"""Preparations whose work and acknowledgement are one commit, as a set of named steps between frozen worlds.

    worker   claim (several messages), prepare (in a transaction), ack (its last statement), commit, ask (which messages
             are still its own), send (a mail that was prepared in the same transaction), fail
    relay    reap_running
    time     commit_lands, commit_fails: PostgreSQL decides on a COMMIT whose answer was lost
    faults   a COMMIT's answer is lost; a worker dies, or stands still past its lease, and PostgreSQL may end its
             transaction meanwhile

A worker has one transaction at a time. The life of a message is messages/; here a claim takes what is published, and a
lease ends only under a worker that died or froze.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.handlers.done_state import (
    ACKED,
    ASKING,
    BROKEN,
    CLAIMED,
    COMMITS,
    DEAD,
    DONE,
    EFFECTIVE,
    GONE,
    HANDING_ON,
    IDLE,
    MAIL,
    NOBODY,
    PREPARED,
    PUBLISHED,
    REFUSED,
    RUNNING,
    DoneConfig,
    DoneGuard,
    DoneStep,
    DoneWorld,
    Hand,
    InDoubt,
    Move,
    Work,
)
from tests.model.search import Found, search

Check = Callable[[DoneWorld, DoneStep, DoneWorld, DoneConfig], bool]


def explore_done(config: DoneConfig, checks: dict[str, Check]) -> Found[DoneWorld]:
    """Visit every world that can be reached."""

    def with_config(check: Check) -> Callable[[DoneWorld, DoneStep, DoneWorld], bool]:
        return lambda before, step, after: check(before, step, after, config)

    return search(
        config.initial(),
        lambda world: done_steps(world, config),
        {text: with_config(check) for text, check in checks.items()},
    )


def done_steps(world: DoneWorld, config: DoneConfig) -> Iterator[Move]:
    for number, hand in enumerate(world.hands):
        if number and hand.phase == world.hands[number - 1].phase == IDLE:
            continue  # a twin
        yield from _hand_steps(world, config, number)
        if world.faults and hand.phase != IDLE:
            yield from _fault_steps(world, config, number)
    yield from _reap_steps(world, config)
    if world.doubt is not None:
        decided = world._replace(doubt=None)
        yield DoneStep("commit_lands", "postgres"), _committed(decided, config, *world.doubt[1:])
        yield DoneStep("commit_fails", "postgres"), decided


def _hand_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    if hand.phase == IDLE:
        yield from _claim_steps(world, number)
    elif hand.phase == CLAIMED:
        yield _prepare(world, config, number)
    elif hand.phase in (PREPARED, EFFECTIVE):
        yield from _ack_steps(world, config, number)
    elif hand.phase == ACKED:
        yield from _commit_steps(world, config, number)
    elif hand.phase == ASKING:
        yield from _ask_steps(world, config, number)
    elif hand.phase == BROKEN:
        yield _fail(world, config, number, is_dead=config.keeps(DoneGuard.BROKEN_IS_DEAD))
    early = hand.phase in (PREPARED, ACKED) and not config.keeps(DoneGuard.MAILS_AFTER_COMMIT)
    if hand.phase == HANDING_ON or early:
        yield from _send_steps(world, config, number)


def _claim_steps(world: DoneWorld, number: int) -> Iterator[Move]:
    """One message, or all that can be claimed."""
    free = [message for message, row in enumerate(world.rows) if row.status == PUBLISHED]
    batches: list[tuple[int, ...]] = [(message,) for message in free]
    if len(free) > 1:
        batches.append(tuple(free))
    for batch in batches:
        after = world.with_hand(number, Hand(CLAIMED, batch))
        for message in batch:
            row = world.rows[message]
            after = after.with_row(message, row._replace(status=RUNNING, attempt=row.attempt + 1, token=number))
        yield DoneStep("claim", _who(number), _named(batch)), after


def _prepare(world: DoneWorld, config: DoneConfig, number: int) -> Move:
    hand = world.hands[number]
    after = world.with_hand(number, hand._replace(phase=PREPARED))
    for message in hand.batch:
        if config.kinds[message] == COMMITS:
            row = world.rows[message]
            after = after.with_row(message, row._replace(effects=min(2, row.effects + 1)))
    return DoneStep("prepare", _who(number), _named(hand.batch)), after


def _ack_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    who = _who(number)
    to_ack = tuple(message for message in hand.batch if config.is_done_by(message))
    if any(world.locked_for(message, number) for message in to_ack):
        return  # it waits
    if not config.keeps(DoneGuard.SAME_COMMIT) and hand.phase == PREPARED:
        effective = _committed(world, config, hand.batch, ())
        yield DoneStep("commit", who, "the work alone"), effective.with_hand(number, hand._replace(phase=EFFECTIVE))
        return
    acked = tuple(message for message in to_ack if _is_ours(world.rows[message], config, number))
    if any(config.kinds[message] == COMMITS for message in hand.batch):
        if config.keeps(DoneGuard.MARKER_IN_ACK):
            yield DoneStep("ack", who, "0 rows: no marker"), world.with_hand(number, hand._replace(phase=BROKEN))
        else:
            # A transaction of its own: what it finishes is finished before the marker is read.
            finished = _committed(world, config, (), acked).with_hand(number, Hand())
            yield DoneStep("ack", who, f"{_named(acked)}, committed at once"), finished
        return
    whole = acked == to_ack or not config.keeps(DoneGuard.ALL_OR_NOTHING)
    if hand.phase == EFFECTIVE:
        yield DoneStep("ack", who, _named(acked)), _committed(world, config, (), acked).with_hand(number, Hand())
    elif whole:
        yield DoneStep("ack", who, _named(acked)), world.with_hand(number, hand._replace(phase=ACKED, locks=acked))
    else:
        asking = hand._replace(phase=ASKING, locks=())
        yield DoneStep("ack", who, f"only {_named(acked)}: rollback"), world.with_hand(number, asking)


def _is_ours(row: Work, config: DoneConfig, number: int) -> bool:
    return row.status == RUNNING and (row.token == number or not config.keeps(DoneGuard.ACK_TOKEN))


def _commit_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    who = _who(number)
    acked = tuple(message for message in hand.batch if config.is_done_by(message) and message in hand.locks)
    if any(config.kinds[message] == REFUSED for message in hand.batch):
        if config.keeps(DoneGuard.COMMIT_REFUSED):
            yield _fail(world, config, number, is_dead=False)
        else:
            yield DoneStep("commit", who, "an error"), world.with_hand(number, Hand(ASKING, hand.batch))
        return
    committed = _committed(world, config, hand.batch, acked)
    mails = tuple(message for message in hand.batch if config.kinds[message] == MAIL)
    then = Hand(HANDING_ON, mails, late=hand.late) if mails else Hand()
    yield DoneStep("commit", who), committed.with_hand(number, then)
    if world.faults and world.doubt is None:
        asking = world.with_hand(number, Hand(ASKING, hand.batch, late=hand.late))
        doubt = asking._replace(doubt=InDoubt(number, hand.batch, acked), faults=world.faults - 1)
        yield DoneStep("commit", who, "its answer is lost", is_own=False), doubt


def _committed(world: DoneWorld, config: DoneConfig, batch: tuple[int, ...], acked: tuple[int, ...]) -> DoneWorld:
    for message in batch:
        row = world.rows[message]
        if config.kinds[message] == MAIL:
            row = row._replace(records=min(2, row.records + 1))
        else:
            row = row._replace(effects=min(2, row.effects + 1))
        world = world.with_row(message, row)
    for message in acked:
        world = world.with_row(message, world.rows[message]._replace(status=DONE, token=NOBODY))
    return world


def _ask_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    """Which of the batch are still its own? A transaction of its own, which ends before they are prepared again."""
    hand = world.hands[number]
    waits = any(world.locked_for(message, number) for message in hand.batch)
    if waits and config.keeps(DoneGuard.OURS_LOCKED):
        return
    ours = tuple(
        message
        for message in hand.batch
        if world.rows[message].status == RUNNING and world.rows[message].token == number
    )
    then = Hand(CLAIMED, ours, late=hand.late) if ours else Hand()
    yield DoneStep("ask", _who(number), f"still ours: {_named(ours) or 'none'}"), world.with_hand(number, then)


def _send_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    """Send a mail and acknowledge it: what may come between is messages/."""
    hand = world.hands[number]
    for message in hand.batch:
        row = world.rows[message]
        if config.kinds[message] != MAIL or row.mails or world.locked_for(message, number):
            continue
        sent = row._replace(mails=1)
        if row.token == number:
            sent = sent._replace(status=DONE, token=NOBODY)
        left = tuple(each for each in hand.batch if each != message)
        then = hand if hand.phase != HANDING_ON else Hand(HANDING_ON, left, late=hand.late) if left else Hand()
        yield DoneStep("send", _who(number), f"m{message}"), world.with_row(message, sent).with_hand(number, then)
    if hand.phase == HANDING_ON and not any(world.rows[message].token == number for message in hand.batch):
        yield DoneStep("send", _who(number), "claim lost"), world.with_hand(number, Hand())


def _fail(world: DoneWorld, config: DoneConfig, number: int, *, is_dead: bool) -> Move:
    hand = world.hands[number]
    after = world.with_hand(number, Hand())
    for message in hand.batch:
        row = world.rows[message]
        if row.status == RUNNING and row.token == number:
            after = after.with_row(message, _ended(row, config, is_dead=is_dead))
    return DoneStep("fail", _who(number), _named(hand.batch)), after


def _ended(row: Work, config: DoneConfig, *, is_dead: bool = False) -> Work:
    status = DEAD if is_dead or row.attempt > config.max_retries else PUBLISHED
    return row._replace(status=status, token=NOBODY, spent=row.spent + 1)


def _reap_steps(world: DoneWorld, config: DoneConfig) -> Iterator[Move]:
    for message, row in enumerate(world.rows):
        lost = row.token == GONE or (row.token >= 0 and world.hands[row.token].late)
        if row.status != RUNNING or not lost:
            continue
        if not world.locked_for(message):  # SKIP LOCKED
            yield DoneStep("reap_running", f"m{message}"), world.with_row(message, _ended(row, config))


def _fault_steps(world: DoneWorld, config: DoneConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    faulty = world._replace(faults=world.faults - 1)
    left = _left_by(faulty, number)
    yield DoneStep("crash", _who(number), is_own=False), left
    if hand.phase == ACKED and not any(config.kinds[message] == REFUSED for message in hand.batch):
        acked = tuple(message for message in hand.batch if config.is_done_by(message) and message in hand.locks)
        yield DoneStep("crash", _who(number), "committed", is_own=False), _committed(left, config, hand.batch, acked)
    if not hand.late:
        late = hand._replace(late=True)
        yield DoneStep("stand_still", _who(number), "past its lease", is_own=False), faulty.with_hand(number, late)
        if hand.phase in (PREPARED, ACKED):
            ended = Hand(ASKING, hand.batch, late=True)
            remark = "PostgreSQL ends its transaction"
            yield DoneStep("stand_still", _who(number), remark, is_own=False), faulty.with_hand(number, ended)


def _left_by(world: DoneWorld, number: int) -> DoneWorld:
    for message, row in enumerate(world.rows):
        if row.token == number:
            world = world.with_row(message, row._replace(token=GONE))
    return world.with_hand(number, Hand())


def _who(number: int) -> str:
    return f"worker {number}"


def _named(messages: tuple[int, ...]) -> str:
    return ", ".join(f"m{message}" for message in messages)
