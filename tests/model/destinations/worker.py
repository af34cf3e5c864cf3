"""The steps of a worker with one message: claim, read the destination, begin, send, and record what became of it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.destinations.relay import failed
from tests.model.destinations.state import (
    ANSWERED,
    BLOCKED,
    CLAIMED,
    DEAD,
    DONE,
    DOWN,
    HANGS,
    IDLE,
    KNOWN,
    MOST_UNAVAILABLE,
    NOBODY,
    NOT_CONTACTED,
    NOWHERE,
    PENDING,
    PUBLISHED,
    READ_FIRST,
    READY,
    REFUSED,
    RESULTS,
    RUNNING,
    SENDING,
    UNAVAILABLE,
    UNKNOWN,
    UNKNOWN_FOR_AN_HOUR,
    UNKNOWN_LATELY,
    Destination,
    DestinationGuard,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
    Hand,
    Message,
    Move,
    name_of,
)


def hand_steps(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    if hand.phase == IDLE:
        yield from _claim_steps(world, config, number)
    elif hand.phase == READ_FIRST:
        if world.messages[hand.message].status == PUBLISHED:
            yield _claim(world, config, number, hand)
    elif hand.phase == CLAIMED:
        yield _read(world, config, number, hand)
    elif hand.phase == READY:
        yield from _begin(world, config, number)
    elif hand.phase == SENDING:
        yield from _send(world, config, number)
    elif not _waits_for_a_lock(world, config):
        yield _record(world, config, number)


def _claim_steps(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    for message, row in enumerate(world.messages):
        if row.status != PUBLISHED:
            continue
        hand = hand._replace(message=message, former=row.destination)
        if config.keeps(DestinationGuard.READ_AFTER_CLAIM) or not hand.knows:
            yield _claim(world, config, number, hand)
        else:
            early = hand._replace(destination=config.tasks[message], phase=READ_FIRST)
            yield _read(world, config, number, early)


def _claim(world: DestinationsWorld, config: DestinationsConfig, number: int, hand: Hand) -> Move:
    row = world.messages[hand.message]
    registered = config.tasks[hand.message] if hand.knows else NOWHERE
    destination = row.destination
    if destination == NOWHERE or (hand.knows and config.keeps(DestinationGuard.CLAIM_CORRECTS)):
        destination = registered
    written = row.destination
    if written != NOWHERE or config.keeps(DestinationGuard.CLAIM_FILLS_IN):
        written = destination
    claimed = row._replace(
        status=RUNNING, attempt=row.attempt + 1, destination=written, was_known=row.was_known or hand.knows
    )
    if hand.knows and config.keeps(DestinationGuard.CLAIM_KNOWS):
        claimed = claimed._replace(unknown=KNOWN)
    phase = READY if hand.phase == READ_FIRST else CLAIMED
    held = hand._replace(phase=phase, destination=destination, is_holder=True)
    what = f"m{hand.message}"
    remark = f"for {name_of(destination)}" if hand.knows else UNKNOWN
    return DestinationStep("claim", what, remark), world.with_message(hand.message, claimed).with_hand(number, held)


def _read(world: DestinationsWorld, config: DestinationsConfig, number: int, hand: Hand) -> Move:
    destination = world.destinations[hand.destination] if hand.destination != NOWHERE else Destination()
    is_probe = destination.is_open and destination.probe == hand.message
    is_blocked = (destination.paused and config.keeps(DestinationGuard.READ_PAUSE)) or (
        destination.is_open and not is_probe
    )
    free, blocked = (READ_FIRST, IDLE) if hand.phase == READ_FIRST else (READY if hand.knows else UNKNOWN, BLOCKED)
    phase = blocked if is_blocked else free
    read = hand._replace(
        phase=phase,
        read_open=destination.is_open,
        is_probe=is_probe,
        read_pause=world.destinations[config.tasks[hand.message]].paused,
    )
    remark = f"{name_of(hand.destination)}: {BLOCKED if is_blocked else 'available'}"
    return DestinationStep("read", f"m{hand.message}", remark), world.with_hand(
        number, Hand(hand.knows) if phase == IDLE else read
    )


def _begin(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Iterator[Move]:
    """The check of the lease and the begin are one step."""
    hand = world.hands[number]
    what = f"m{hand.message}"
    if hand.late and config.keeps(DestinationGuard.BEGIN_UNTIL):
        yield DestinationStep("begin", what, "too late"), world.with_hand(number, hand._replace(phase=BLOCKED))
        return
    places = len(world.hands)
    slow = [other.destination for other in world.hands if other.phase == SENDING and _is_slow(world, config, other)]
    if not config.keeps(DestinationGuard.SLOW_TOGETHER):
        slow = [each for each in slow if each == hand.destination]
    if not _is_slow(world, config, hand) or len(slow) < max(1, places // 2):
        yield DestinationStep("begin", what), world.with_hand(number, hand._replace(phase=SENDING))
    elif config.keeps(DestinationGuard.NO_PLACE_RELEASES):
        yield DestinationStep("begin", what, "no place"), world.with_hand(number, hand._replace(phase=BLOCKED))


def _is_slow(world: DestinationsWorld, config: DestinationsConfig, hand: Hand) -> bool:
    if hand.is_probe and config.keeps(DestinationGuard.PROBE_IS_SLOW):
        return True
    return not world.destinations[hand.destination].is_quick and config.keeps(DestinationGuard.NEW_IS_SLOW)


def _send(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Iterator[Move]:
    hand = world.hands[number]
    server = world.destinations[config.tasks[hand.message]].server
    if server == HANGS:
        return
    is_unavailable = server == DOWN or hand.message in config.poisoned
    results = [UNAVAILABLE] if is_unavailable else [ANSWERED, REFUSED]
    if config.not_contacted:
        results.append(NOT_CONTACTED)
    for result in results:
        after = world.with_hand(number, hand._replace(phase=result))
        if result in (ANSWERED, REFUSED):
            destination = after.destinations[hand.destination]
            after = after.with_destination(hand.destination, destination._replace(is_quick=True))
        yield DestinationStep("send", f"m{hand.message}", result), after


def _waits_for_a_lock(world: DestinationsWorld, config: DestinationsConfig) -> bool:
    """Without the guard: the results of all hands are one batch, which waits for each destination's row."""
    return not config.keeps(DestinationGuard.BREAKER_SKIPS) and any(
        hand.phase in RESULTS and hand.destination != NOWHERE and world.destinations[hand.destination].locked
        for hand in world.hands
    )


def _record(world: DestinationsWorld, config: DestinationsConfig, number: int) -> Move:
    """One transaction: the message first, then the destinations' rows."""
    hand = world.hands[number]
    after = world.with_hand(number, Hand(hand.knows))
    if hand.is_holder:
        after = after.with_message(hand.message, _ended(world, config, hand))
    for each in sorted({hand.former, hand.destination} - {NOWHERE}):
        destination = world.destinations[each]
        if not destination.locked:
            learned = _learned if each == hand.destination else _released
            after = after.with_destination(each, learned(destination, config, hand))
    return DestinationStep("record", f"m{hand.message}", hand.phase if hand.is_holder else "claim lost"), after


def _ended(world: DestinationsWorld, config: DestinationsConfig, hand: Hand) -> Message:
    """The row after its claim has ended."""
    row = world.messages[hand.message]
    phase = hand.phase
    if phase in (ANSWERED, NOT_CONTACTED):
        return row._replace(status=DONE)
    if phase == REFUSED:
        return failed(row, config)
    if phase == UNKNOWN:
        if row.unknown == UNKNOWN_FOR_AN_HOUR and config.keeps(DestinationGuard.UNKNOWN_ENDS):
            return row._replace(status=DEAD)
        if row.unknown == KNOWN:
            row = row._replace(unknown=UNKNOWN_LATELY, was_known=False)
    if phase == UNAVAILABLE:
        is_locked = world.destinations[hand.destination].locked
        counts = not hand.read_open or not config.keeps(DestinationGuard.COUNT_OPENINGS)
        if is_locked and config.keeps(DestinationGuard.COUNT_WRITTEN):
            counts = False
        row = row._replace(openings=min(row.openings + counts, MOST_UNAVAILABLE + 1))
        if counts and row.openings > MOST_UNAVAILABLE and config.keeps(DestinationGuard.UNAVAILABLE_ENDS):
            return failed(row, config)
    given_back = row.attempt - config.keeps(DestinationGuard.RELEASE_GIVES_BACK)
    return row._replace(status=PENDING, due=False, attempt=given_back)


def _learned(destination: Destination, config: DestinationsConfig, hand: Hand) -> Destination:
    """The destination's row after a result."""
    is_probe = destination.probe == hand.message
    if hand.phase == UNAVAILABLE:
        if destination.is_open and not is_probe:
            return destination
        return destination._replace(is_open=True, probe=NOBODY, probe_due=False)
    if not destination.is_open or not hand.read_open:
        return destination  # what was in hand when it was opened says nothing
    closes = hand.phase in (ANSWERED, REFUSED)
    if hand.phase == NOT_CONTACTED and not config.keeps(DestinationGuard.CONTACT_CLOSES):
        closes = True
    if closes:
        return destination._replace(is_open=False, probe=NOBODY, probe_due=False)
    return destination._replace(probe=NOBODY, probe_due=False) if is_probe else destination


def _released(destination: Destination, _config: DestinationsConfig, hand: Hand) -> Destination:
    """The row of the destination that the message's row named, whose probe it may have been."""
    is_probe = destination.is_open and destination.probe == hand.message
    return destination._replace(probe=NOBODY, probe_due=True) if is_probe else destination
