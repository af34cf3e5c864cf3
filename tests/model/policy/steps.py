"""Outages by policy as a set of named steps, and every world that they lead to.

    worker    claim (with the relay's part: a probe while an outage is declared), send, read (the breaker, before the
              outcome is written), and record: what became of the message, and what is noted of a refusal
    operator  retry, discard
    others    reap (the worker died), arrive (a good message in the place of one that has ended), change_mind (the
              server refuses everybody, or does no longer)

The rows' life is protocol.py's; here a claim takes any pending message, backoff has no length, and leases end only
under dead workers. Every message has a recipient and a domain of its own: which refusals are alike, and of how many
domains they are, is left to the tests of the code, as are the turns of the probes. A record is one step: it locks the
message's row and then the breaker's, so that two of them pass one after the other. Only what is read before that
(`read`) may be outdated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.model.policy.state import (
    ACCEPTED,
    BEFORE,
    CLAIMED,
    DEAD,
    DISCARDED,
    DONE,
    IDLE,
    IN_HAND,
    NEVER,
    NOT_NOTED,
    NOTED,
    OUTDATED,
    PENDING,
    REFUSED,
    RUNNING,
    SINCE,
    TO_FAIL,
    TO_RELEASE,
    UNKNOWN_USER,
    Message,
    PolicyConfig,
    PolicyGuard,
    PolicyWorld,
    Worker,
)
from tests.model.search import Found, search


class PolicyStep(NamedTuple):
    """What happened, to which message, and whether the protocol did it by itself."""

    name: str
    message: int
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.name} m{self.message}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[PolicyStep, PolicyWorld]


def policy_steps(world: PolicyWorld, config: PolicyConfig) -> Iterator[Move]:
    for number, worker in enumerate(world.workers):
        if number and worker == world.workers[number - 1]:
            continue  # a twin
        if worker.phase == IDLE:
            yield from _claim(world, number)
        elif worker.phase == CLAIMED:
            yield from _send(world, config, number)
        elif worker.phase == REFUSED:
            yield _read(world, config, number)
        else:
            yield from _record(world, config, number)
        if worker.phase != IDLE and world.faults:
            yield _reap(world, config, number)
    yield from _environment(world, config)


def _claim(world: PolicyWorld, number: int) -> Iterator[Move]:
    if world.is_open and any(worker.is_probe for worker in world.workers):
        return
    for message, row in enumerate(world.messages):
        if row.status == PENDING:
            noted = IN_HAND if row.noted == NOTED else row.noted
            held = row._replace(status=RUNNING, attempt=row.attempt + 1, noted=noted)
            worker = Worker(CLAIMED, message, is_probe=world.is_open)
            yield PolicyStep("claim", message), world.with_message(message, held).with_worker(number, worker)


def _send(world: PolicyWorld, config: PolicyConfig, number: int) -> Iterator[Move]:
    worker = world.workers[number]
    message = worker.message
    if world.is_open and not worker.is_probe:
        # It may have read the breaker before that, and then it sends.
        released = _released(world.messages[message])
        after = world.with_message(message, released).with_worker(number, Worker())
        yield PolicyStep("send", message, "not begun: an outage"), after
    answers = [REFUSED if world.refuses_all or not config.is_good(message) else ACCEPTED]
    if config.unknown_users and not world.refuses_all:
        answers.append(UNKNOWN_USER)
    for answer in answers:
        yield PolicyStep("send", message, answer), world.with_worker(number, worker._replace(phase=answer))


def _read(world: PolicyWorld, config: PolicyConfig, number: int) -> Move:
    worker = world.workers[number]
    row = world.messages[worker.message]
    spends = row.last == BEFORE and config.keeps(PolicyGuard.SPEND)
    release = world.is_open and not spends and config.keeps(PolicyGuard.RELEASE)
    phase = TO_RELEASE if release else TO_FAIL
    return PolicyStep("read", worker.message, phase), world.with_worker(number, worker._replace(phase=phase))


def _record(world: PolicyWorld, config: PolicyConfig, number: int) -> Iterator[Move]:
    """Write it; with a fault the answer to the commit is lost, and the same is written once more."""
    worker = world.workers[number]
    message = worker.message
    is_ours = not worker.in_doubt  # nobody else takes a claim within its lease
    after = _written(world, config, worker, is_ours=is_ours)
    yield PolicyStep("record", message, worker.phase), after.with_worker(number, Worker())
    if world.faults and is_ours:
        doubtful = after.with_worker(number, worker._replace(in_doubt=True))
        lost = doubtful._replace(faults=world.faults - 1)
        yield PolicyStep("record", message, f"{worker.phase}, the commit's answer is lost", is_own=False), lost


def _written(world: PolicyWorld, config: PolicyConfig, worker: Worker, *, is_ours: bool) -> PolicyWorld:
    message = worker.message
    row = world.messages[message]
    if worker.phase == ACCEPTED:
        world = _accepted(world.with_message(message, Message(DONE))) if is_ours else world
        return world._replace(is_open=False) if worker.is_probe else world
    if worker.phase == UNKNOWN_USER:
        noted = OUTDATED if row.noted == IN_HAND else row.noted
        gone = _failed(row, config, dead=True)._replace(noted=noted, owed=0)
        return world.with_message(message, gone) if is_ours else world
    if worker.phase == TO_RELEASE:
        released = row._replace(status=PENDING, attempt=row.attempt - 1, met=row.met or SINCE)
        if row.first == NEVER and config.keeps(PolicyGuard.FIRST_RELEASE):
            released = released._replace(first=SINCE, last=SINCE)
        world = world.with_message(message, released) if is_ours else world
    elif is_ours:
        world = world.with_message(message, _refused(row, config))
    if worker.is_probe and not config.keeps(PolicyGuard.STAYS_OPEN):
        world = world._replace(is_open=False)
    if is_ours or not config.keeps(PolicyGuard.WRITTEN):
        world = _note(world, config, message, is_spent=worker.phase == TO_FAIL)
    return world


def _accepted(world: PolicyWorld) -> PolicyWorld:
    """From now on every refusal so far lies before an acceptance; what was noted counts no more."""
    return world._replace(
        messages=tuple(
            row._replace(
                first=BEFORE if row.first == SINCE else row.first,
                last=BEFORE if row.last == SINCE else row.last,
                met=BEFORE if row.met == SINCE else row.met,
                noted=NOT_NOTED,
                spent=0,
                owed=0,
            )
            for row in world.messages
        )
    )


def _note(world: PolicyWorld, config: PolicyConfig, message: int, *, is_spent: bool) -> PolicyWorld:
    """Note the refusal on the breaker's row, declare an outage when there are enough, and give attempts back then."""
    row = world.messages[message]
    counts = row.first == SINCE or not config.keeps(PolicyGuard.FIRST_REFUSAL)
    if is_spent and counts:
        spent = row.spent + 1 if row.noted == IN_HAND or not config.keeps(PolicyGuard.WRITTEN) else 1
        world = world.with_message(message, row._replace(noted=NOTED, spent=spent))
    elif row.noted == IN_HAND:
        world = world.with_message(message, row._replace(noted=OUTDATED if is_spent else NOTED))
    was_open = world.is_open
    if sum(each.noted != NOT_NOTED for each in world.messages) >= config.enough:
        world = world._replace(is_open=True)
    if world.is_open and (config.keeps(PolicyGuard.GIVE_BACK_LATE) or not was_open):
        world = world._replace(messages=tuple(_given_back(each, config) for each in world.messages))
    return world


def _given_back(row: Message, config: PolicyConfig) -> Message:
    fits = row.noted == NOTED or (row.noted in (IN_HAND, OUTDATED) and not config.keeps(PolicyGuard.SAME_LIFE))
    if not fits or row.status not in (PENDING, DEAD):
        return row
    return row._replace(
        status=PENDING,
        attempt=row.attempt - row.spent,
        noted=NOT_NOTED,
        spent=0,
        account=row.account - row.owed,
        owed=0,
        given_back=min(2, row.given_back + 1),
    )


def _refused(row: Message, config: PolicyConfig) -> Message:
    first = SINCE if row.first == NEVER else row.first
    owed = row.owed + 1 if first == SINCE else 0
    return _failed(row, config)._replace(first=first, last=SINCE, owed=owed, met=row.met or SINCE)


def _failed(row: Message, config: PolicyConfig, *, dead: bool = False) -> Message:
    status = DEAD if dead or row.attempt > config.max_retries else PENDING
    return row._replace(status=status, account=row.account + 1)


def _released(row: Message) -> Message:
    """Put back with its attempt. Only a record of the refusal itself takes its note along."""
    noted = OUTDATED if row.noted == IN_HAND else row.noted
    owed = 0 if noted == OUTDATED else row.owed
    return row._replace(status=PENDING, attempt=row.attempt - 1, noted=noted, owed=owed)


def _reap(world: PolicyWorld, config: PolicyConfig, number: int) -> Move:
    """The worker dies, and in the end a relay takes its message back, unless it was written already."""
    worker = world.workers[number]
    after = world.with_worker(number, Worker())._replace(faults=world.faults - 1)
    if not worker.in_doubt:
        row = world.messages[worker.message]
        noted = OUTDATED if row.noted == IN_HAND else row.noted
        after = after.with_message(worker.message, _failed(row, config)._replace(noted=noted, owed=0))
    return PolicyStep("reap", worker.message, is_own=False), after


def _environment(world: PolicyWorld, config: PolicyConfig) -> Iterator[Move]:
    for message, row in enumerate(world.messages):
        if row.status in (DONE, DEAD, DISCARDED) and config.is_good(message):
            yield PolicyStep("arrive", message), world.with_message(message, Message())
        if not world.orders:
            continue
        ordered = world._replace(orders=world.orders - 1)
        noted = OUTDATED if row.noted == NOTED else row.noted
        if row.status == DEAD:
            again = row._replace(status=PENDING, attempt=0, account=0, owed=0, noted=noted)
            yield PolicyStep("retry", message, is_own=False), ordered.with_message(message, again)
        if row.status in (DEAD, PENDING):
            gone = row._replace(status=DISCARDED, owed=0, noted=noted)
            yield PolicyStep("discard", message, is_own=False), ordered.with_message(message, gone)
    if world.switches:
        changed = world._replace(refuses_all=not world.refuses_all, switches=world.switches - 1)
        yield PolicyStep("change_mind", -1, is_own=False), changed


Check = Callable[[PolicyWorld, PolicyStep, PolicyWorld, PolicyConfig], bool]


def explore_policy(first: PolicyWorld, config: PolicyConfig, checks: dict[str, Check]) -> Found[PolicyWorld]:
    """Visit every world that can be reached; workers differ only in what they do."""

    def moves(world: PolicyWorld) -> Iterator[Move]:
        for step, after in policy_steps(world, config):
            yield step, after._replace(workers=tuple(sorted(after.workers)))

    def with_config(check: Check) -> Callable[[PolicyWorld, PolicyStep, PolicyWorld], bool]:
        return lambda before, step, after: check(before, step, after, config)

    return search(first, moves, {text: with_config(check) for text, check in checks.items()})
