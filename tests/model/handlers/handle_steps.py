"""Handlers in the places of workers, their leases and what they append, as a set of named steps between frozen worlds.

    worker   claim, begin (the handler), returns, raises, renew (the leases of handlers that run), ack (with what was
             appended), fail, release, exit (and it is started again)
    relay    reap_running
    time     lease_ends, overtime (the handler has run for timeout_seconds), ends_late (one that is given up returns)
    faults   a COMMIT's answer is lost; a worker dies, or stands still past its lease
    operator shutdown, whose time ends while handlers run

The life of a message is messages/; here a claim takes what is published. The lease of a handler that runs is renewed
often enough, unless its worker freezes: renew is a step only where that matters, after a freeze.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.handlers.handle_state import (
    APPENDED,
    APPENDS_WHAT_IS_REFUSED,
    BEFORE_RESULT,
    CLAIMED,
    DEAD,
    DONE,
    GONE,
    IDLE,
    LOST,
    NEVER_ENDS,
    NOBODY,
    OVERTIME,
    PUBLISHED,
    RAISED,
    RETURNED,
    RUNNING,
    SHUT_DOWN,
    TOO_LATE,
    WORKING,
    HandleConfig,
    HandleGuard,
    HandleStep,
    HandleWorld,
    Move,
    Place,
    Task,
)
from tests.model.search import Found, search

MOST_LATES = 2
Check = Callable[[HandleWorld, HandleStep, HandleWorld, HandleConfig], bool]


def explore_handle(config: HandleConfig, checks: dict[str, Check]) -> Found[HandleWorld]:
    """Visit every world that can be reached."""

    def with_config(check: Check) -> Callable[[HandleWorld, HandleStep, HandleWorld], bool]:
        return lambda before, step, after: check(before, step, after, config)

    return search(
        config.initial(),
        lambda world: handle_steps(world, config),
        {text: with_config(check) for text, check in checks.items()},
    )


def handle_steps(world: HandleWorld, config: HandleConfig) -> Iterator[Move]:
    for number in range(len(world.places)):
        yield from _place_steps(world, config, number)
    for number, task in enumerate(world.tasks):
        yield from _time_steps(world, config, number, task)
    for worker in range(len(config.workers)):
        yield from _worker_steps(world, config, worker)


def _place_steps(world: HandleWorld, config: HandleConfig, number: int) -> Iterator[Move]:
    place = world.places[number]
    if place.phase == IDLE:
        yield from _claim_steps(world, config, number)
        return
    task = world.tasks[place.message]
    if place.phase == CLAIMED:
        yield _begin(world, config, number)
    elif place.phase == WORKING:
        yield from _working_steps(world, config, number)
    elif place.phase in (RETURNED, APPENDED):
        yield from _ack_steps(world, config, number)
    elif place.phase == TOO_LATE:
        released = task._replace(status=PUBLISHED, attempt=task.attempt - 1, token=NOBODY, lease_over=False)
        yield _end(world, number, "release", released, Place(place.worker))
    elif place.phase == RAISED:
        yield _end(world, number, "fail", _failed(task, config), Place(place.worker))
    elif place.phase == OVERTIME:
        lates = min(task.lates + 1, MOST_LATES + 1)
        is_dead = lates >= MOST_LATES and config.keeps(HandleGuard.LATE_TWICE)
        failed = _failed(task._replace(lates=lates), config, is_dead=is_dead)
        yield _end(world, number, "fail", failed, place._replace(phase=LOST))
    elif place.phase == LOST and config.kinds[place.message] != NEVER_ENDS:
        yield HandleStep("ends_late", _who(number)), world.with_place(number, Place(place.worker))


def _claim_steps(world: HandleWorld, config: HandleConfig, number: int) -> Iterator[Move]:
    worker = world.places[number].worker
    if _is_ending(world, config, worker):
        return
    for message, task in enumerate(world.tasks):
        if task.status == PUBLISHED:
            claimed = task._replace(status=RUNNING, attempt=task.attempt + 1, token=number, lease_over=False)
            held = world.with_task(message, claimed).with_place(number, Place(worker, CLAIMED, message))
            yield HandleStep("claim", _who(number), f"m{message}"), held


def _begin(world: HandleWorld, config: HandleConfig, number: int) -> Move:
    """The check of the lease and the call are one step."""
    place = world.places[number]
    if place.late and config.keeps(HandleGuard.BEGIN_UNTIL):
        return HandleStep("begin", _who(number), TOO_LATE), world.with_place(number, place._replace(phase=TOO_LATE))
    task = world.tasks[place.message]
    called = task._replace(calls=min(3, task.calls + 1), call_owed=False)
    working = world.with_task(place.message, called).with_place(number, place._replace(phase=WORKING))
    return HandleStep("begin", _who(number)), working


def _working_steps(world: HandleWorld, config: HandleConfig, number: int) -> Iterator[Move]:
    place = world.places[number]
    task = world.tasks[place.message]
    if config.kinds[place.message] != NEVER_ENDS:
        yield HandleStep("returns", _who(number)), world.with_place(number, place._replace(phase=RETURNED))
        excused = world.with_task(place.message, task._replace(call_owed=True))
        yield HandleStep("raises", _who(number)), excused.with_place(number, place._replace(phase=RAISED))
    if config.keeps(HandleGuard.RENEW_UNTIL):
        late = world.with_task(place.message, task._replace(call_owed=True))
        yield HandleStep("overtime", _who(number)), late.with_place(number, place._replace(phase=OVERTIME))
    if not place.late:
        return
    own = task.token == number or not config.keeps(HandleGuard.RENEW_TOKEN)
    if task.status == RUNNING and own:
        renewed = world.with_task(place.message, task._replace(lease_over=False))
        yield HandleStep("renew", _who(number)), renewed.with_place(number, place._replace(late=False))


def _ack_steps(world: HandleWorld, config: HandleConfig, number: int) -> Iterator[Move]:
    """Finish the message and write what its handler appended, in one statement, repeated until it is answered."""
    place = world.places[number]
    who = _who(number)
    task = world.tasks[place.message]
    more = task._replace(children=min(2, task.children + 1))
    if place.phase == RETURNED and not config.keeps(HandleGuard.APPENDS_IN_ACK):
        alone = world.with_task(place.message, more).with_place(number, place._replace(phase=APPENDED))
        yield HandleStep("append", who, "in a commit of its own"), alone
        return
    is_ours = task.status == RUNNING and (task.token == number or not config.keeps(HandleGuard.ACK_TOKEN))
    if config.kinds[place.message] == APPENDS_WHAT_IS_REFUSED and is_ours:
        if config.keeps(HandleGuard.APPENDS_REFUSED):
            excused = world.with_task(place.message, task._replace(call_owed=True))
            yield HandleStep("ack", who, "refused"), excused.with_place(number, place._replace(phase=RAISED))
        return
    idle = Place(place.worker)
    if not is_ours:
        twice = place.unsure and task.status == DONE and not config.keeps(HandleGuard.APPENDS_FROM_ACK)
        after = world.with_task(place.message, more) if twice else world
        remark = "0 rows: done before" if place.unsure else "0 rows"
        yield HandleStep("ack", who, remark), after.with_place(number, idle)
        return
    written = task if place.phase == APPENDED else more
    done = world.with_task(place.message, written._replace(status=DONE, token=NOBODY, lease_over=False))
    yield HandleStep("ack", who), done.with_place(number, idle)
    if world.faults and not place.unsure:
        lost = done._replace(faults=world.faults - 1).with_place(number, place._replace(unsure=True))
        yield HandleStep("ack", who, "not answered, committed", is_own=False), lost


def _end(world: HandleWorld, number: int, name: str, ended: Task, then: Place) -> Move:
    message = world.places[number].message
    if world.tasks[message].status == RUNNING and world.tasks[message].token == number:
        return HandleStep(name, _who(number)), world.with_task(message, ended).with_place(number, then)
    return HandleStep(name, _who(number), "0 rows"), world.with_place(number, then)


def _failed(task: Task, config: HandleConfig, *, is_dead: bool = False) -> Task:
    status = DEAD if is_dead or task.attempt > config.max_retries else PUBLISHED
    return task._replace(status=status, token=NOBODY, lease_over=False, spent=task.spent + 1)


def _time_steps(world: HandleWorld, config: HandleConfig, number: int, task: Task) -> Iterator[Move]:
    if task.status != RUNNING:
        return
    if task.lease_over:
        yield HandleStep("reap_running", f"m{number}"), world.with_task(number, _failed(task, config))
    elif task.token < 0 or _may_lose_its_lease(world.places[task.token], config):
        yield HandleStep("lease_ends", f"m{number}"), world.with_task(number, task._replace(lease_over=True))


def _may_lose_its_lease(place: Place, config: HandleConfig) -> bool:
    waits = place.phase == RETURNED and config.kinds[place.message] == APPENDS_WHAT_IS_REFUSED
    is_renewed = place.phase != WORKING or config.keeps(HandleGuard.RENEW)
    return place.late or not is_renewed or (waits and not config.keeps(HandleGuard.APPENDS_REFUSED))


def _is_ending(world: HandleWorld, config: HandleConfig, worker: int) -> bool:
    places = [place for place in world.places if place.worker == worker]
    lost = sum(place.phase == LOST for place in places)
    return 0 < len(places) <= 2 * lost and config.keeps(HandleGuard.EXIT)


def _worker_steps(world: HandleWorld, config: HandleConfig, worker: int) -> Iterator[Move]:
    who = f"worker {worker}"
    places = [place for place in world.places if place.worker == worker]
    if _is_ending(world, config, worker) and all(place.phase in (IDLE, LOST) for place in places):
        yield HandleStep("exit", who), _left(world, worker, GONE)
    if all(place.phase == IDLE for place in places):
        return
    if world.faults:
        faulty = world._replace(faults=world.faults - 1)
        yield HandleStep("crash", who, is_own=False), _left(_excused(faulty, worker), worker, GONE)
        late = tuple(
            place._replace(late=True) if place.worker == worker and place.phase in BEFORE_RESULT else place
            for place in world.places
        )
        if late != world.places:
            frozen = _excused(faulty, worker)._replace(places=late)
            yield HandleStep("stand_still", who, "past its leases", is_own=False), frozen
    if world.shutdowns and all(place.phase in (IDLE, CLAIMED, WORKING, LOST) for place in places):
        # Results are written first.
        ended = _excused(world._replace(shutdowns=world.shutdowns - 1), worker)
        if config.keeps(HandleGuard.SHUTDOWN_RELEASES):
            ended = _released(ended, worker)
        yield HandleStep("shutdown", who, is_own=False), _left(ended, worker, SHUT_DOWN)


def _left(world: HandleWorld, worker: int, token: int) -> HandleWorld:
    """The world when the process is gone, and another one is in its place."""
    for number, place in enumerate(world.places):
        if place.worker != worker:
            continue
        for message, task in enumerate(world.tasks):
            if task.token == number:
                world = world.with_task(message, task._replace(token=token))
        world = world.with_place(number, Place(worker))
    return world


def _excused(world: HandleWorld, worker: int) -> HandleWorld:
    """The history of what its handlers work on: another call is excused."""
    for number, place in enumerate(world.places):
        if place.worker == worker and place.phase in BEFORE_RESULT and world.tasks[place.message].token == number:
            task = world.tasks[place.message]
            world = world.with_task(place.message, task._replace(call_owed=True))
    return world


def _released(world: HandleWorld, worker: int) -> HandleWorld:
    for number, place in enumerate(world.places):
        if place.worker == worker and place.phase in BEFORE_RESULT and world.tasks[place.message].token == number:
            task = world.tasks[place.message]
            released = task._replace(status=PUBLISHED, attempt=task.attempt - 1, token=NOBODY, lease_over=False)
            world = world.with_task(place.message, released)
    return world


def _who(number: int) -> str:
    return f"place {number}"
