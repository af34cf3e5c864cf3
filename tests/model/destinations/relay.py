"""The steps of the relay: publish what is due, send a probe, and reap a claim whose worker died or froze."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.destinations.state import (
    DEAD,
    NOBODY,
    NOWHERE,
    PENDING,
    PUBLISHED,
    RUNNING,
    DestinationGuard,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
    Message,
    Move,
    name_of,
)


def relay_steps(world: DestinationsWorld, config: DestinationsConfig) -> Iterator[Move]:
    due = [number for number, row in enumerate(world.messages) if row.status == PENDING and row.due]
    # Without a part for each destination: the oldest of all, then the blocked ones are left out.
    for number in due if config.keeps(DestinationGuard.TAKE_EACH) else due[:1]:
        row = world.messages[number]
        if not is_blocked(world, config, row.destination):
            yield DestinationStep("publish", f"m{number}"), world.with_message(number, published(row))
    yield from _probe_steps(world, config, due)
    for number, row in enumerate(world.messages):
        holder = next((hand for hand in world.hands if hand.is_holder and hand.message == number), None)
        if row.status == RUNNING and (holder is None or holder.late):
            reaped = world.with_message(number, failed(row, config))
            hands = tuple(
                hand._replace(is_holder=False) if hand.message == number and hand.is_holder else hand
                for hand in world.hands
            )
            yield DestinationStep("reap_running", f"m{number}"), reaped._replace(hands=hands)


def _probe_steps(world: DestinationsWorld, config: DestinationsConfig, due: list[int]) -> Iterator[Move]:
    for number, destination in enumerate(world.destinations):
        waits = destination.paused and config.keeps(DestinationGuard.TAKE_PAUSED)
        if not destination.is_open or not destination.probe_due or waits or destination.locked:
            continue
        for message in due:
            row = world.messages[message]
            if row.destination == number:
                probed = destination._replace(probe=message, probe_due=False)
                after = world.with_destination(number, probed).with_message(message, published(row))
                yield DestinationStep("publish", f"m{message}", f"as the probe of {name_of(number)}"), after


def is_blocked(world: DestinationsWorld, config: DestinationsConfig, number: int) -> bool:
    if number == NOWHERE:
        return False
    destination = world.destinations[number]
    is_open = destination.is_open and config.keeps(DestinationGuard.TAKE_OPEN)
    return is_open or (destination.paused and config.keeps(DestinationGuard.TAKE_PAUSED))


def published(row: Message) -> Message:
    return row._replace(status=PUBLISHED)


def failed(row: Message, config: DestinationsConfig) -> Message:
    status = DEAD if row.attempt > config.max_retries else PENDING
    return row._replace(status=status, due=True, spent=row.spent + 1)


def probe_may_fall_due(world: DestinationsWorld, config: DestinationsConfig, number: int) -> bool:
    destination = world.destinations[number]
    has_time_out = destination.probe == NOBODY or config.keeps(DestinationGuard.PROBE_TIMEOUT)
    return destination.is_open and not destination.probe_due and has_time_out
