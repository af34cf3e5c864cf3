"""Messages of several destinations as a set of named steps between frozen worlds, each of them explored.

    relay     publish (also as the probe of an unavailable destination), reap_running
    worker    claim, read (the destination, after the claim's commit), begin (in a place), send, record: what became of
              the message and, in the same transaction, what is known of the destination
    operator  pause, wait_returns (`pause --wait`), resume, lock and unlock (a destination's row), remove (an
              endpoint that is paused)
    others    change (a server), stand_still (a worker, past its lease), crash, arrive (a message in the place of one
              that is over)
    time      becomes_due, probe_falls_due, hour_passes

The life of a message is messages/; here a claim takes any published message, and leases end only under workers that
died or froze. A worker has as many places as hands, and keeps none for the first sends of destinations of which it
knows nothing. A send at a server that hangs never ends here: others have to be
served all the same. What a limit allows is limit.py's, and places that several workers share are places.py's. How many
messages a relay keeps published for a slow destination decides how long others wait, not whether they are served: it is
measured (bench/), not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.destinations.relay import probe_may_fall_due, relay_steps
from tests.model.destinations.state import (
    DISCARDED,
    DOWN,
    HANGS,
    IDLE,
    OVER,
    PENDING,
    PUBLISHED,
    READ_FIRST,
    RUNNING,
    UNKNOWN_FOR_AN_HOUR,
    UNKNOWN_LATELY,
    UP,
    Destination,
    DestinationGuard,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
    Hand,
    Move,
    name_of,
)
from tests.model.destinations.worker import hand_steps
from tests.model.search import Found, search

Check = Callable[[DestinationsWorld, DestinationStep, DestinationsWorld, DestinationsConfig], bool]


def explore_destinations(config: DestinationsConfig, checks: dict[str, Check]) -> Found[DestinationsWorld]:
    """Visit every world that can be reached; hands differ only in what they do and what they know."""

    def moves(world: DestinationsWorld) -> Iterator[Move]:
        for step, after in destination_steps(world, config):
            yield step, after._replace(hands=tuple(sorted(after.hands)))

    def with_config(check: Check) -> Callable[[DestinationsWorld, DestinationStep, DestinationsWorld], bool]:
        return lambda before, step, after: check(before, step, after, config)

    return search(config.initial(), moves, {text: with_config(check) for text, check in checks.items()})


def destination_steps(world: DestinationsWorld, config: DestinationsConfig) -> Iterator[Move]:
    yield from relay_steps(world, config)
    for number, hand in enumerate(world.hands):
        if number == 0 or hand != world.hands[number - 1]:
            yield from hand_steps(world, config, number)
    yield from _time_steps(world, config)
    for number in range(len(world.destinations)):
        yield from _operator_steps(world, config, number)
        yield from _server_steps(world, number)
    if world.faults:
        yield from _fault_steps(world)


def _time_steps(world: DestinationsWorld, config: DestinationsConfig) -> Iterator[Move]:
    for number, row in enumerate(world.messages):
        if row.status == PENDING and not row.due:
            yield DestinationStep("becomes_due", f"m{number}"), world.with_message(number, row._replace(due=True))
        if row.unknown == UNKNOWN_LATELY:
            long = row._replace(unknown=UNKNOWN_FOR_AN_HOUR)
            yield DestinationStep("hour_passes", f"m{number}"), world.with_message(number, long)
        if row.status in OVER and config.arrives and number not in config.poisoned:
            yield DestinationStep("arrive", f"m{number}"), world.with_message(number, config.fresh(number))
    for number, destination in enumerate(world.destinations):
        if probe_may_fall_due(world, config, number):
            due = destination._replace(probe_due=True)
            yield DestinationStep("probe_falls_due", name_of(number)), world.with_destination(number, due)


def _operator_steps(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Iterator[Move]:
    destination = world.destinations[number]
    ordered = world._replace(orders=world.orders - 1)

    def ordering(name: str, at: DestinationsWorld, changed: Destination) -> Move:
        return DestinationStep(name, name_of(number), is_own=False), at.with_destination(number, changed)

    if destination.locked:
        yield ordering("unlock", world, destination._replace(locked=False))
        return
    if destination.paused:
        yield ordering("resume", world, destination._replace(paused=False, waited=False))
        in_hand = any(row.status == RUNNING and row.destination == number for row in world.messages)
        if not destination.waited and not in_hand:
            yield ordering("wait_returns", world, destination._replace(waited=True))
        if config.removes and not destination.removed:
            yield _remove(world, config, number)
    if world.orders and not destination.paused and not destination.removed:
        yield ordering("pause", ordered, destination._replace(paused=True))
    if world.orders and config.locks:
        yield ordering("lock", ordered, destination._replace(locked=True))


def _remove(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Move:
    """End the fan-out, discard what waits, and at last delete the destination's row: no row is not paused."""
    waiting = (PENDING, PUBLISHED)
    messages = tuple(
        row._replace(status=DISCARDED) if row.destination == number and row.status in waiting else row
        for row in world.messages
    )
    if config.keeps(DestinationGuard.REMOVE_ENDS_PAUSE):
        row = Destination(server=world.destinations[number].server, removed=True)
    else:
        row = world.destinations[number]._replace(removed=True)
    removed = world._replace(messages=messages).with_destination(number, row)
    return DestinationStep("remove", name_of(number), is_own=False), removed


def _server_steps(world: DestinationsWorld, number: int) -> Iterator[Move]:
    if not world.switches:
        return
    destination = world.destinations[number]
    switched = world._replace(switches=world.switches - 1)
    if destination.server != HANGS:
        server = DOWN if destination.server == UP else UP
        step = DestinationStep("change", name_of(number), server, is_own=False)
        yield step, switched.with_destination(number, destination._replace(server=server))


def _fault_steps(world: DestinationsWorld) -> Iterator[Move]:
    faulty = world._replace(faults=world.faults - 1)
    for number, hand in enumerate(world.hands):
        if hand.phase in (IDLE, READ_FIRST):
            continue
        what = f"m{hand.message}"
        yield DestinationStep("crash", what, is_own=False), faulty.with_hand(number, Hand(hand.knows))
        if not hand.late:
            late = faulty.with_hand(number, hand._replace(late=True))
            yield DestinationStep("stand_still", what, "past its lease", is_own=False), late
