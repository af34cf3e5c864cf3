"""What the rules about destinations promise, each as a check on one step. The texts are what a failing test prints."""

from __future__ import annotations

from typing import Final

from tests.model.destinations.state import (
    ANSWERED,
    DEAD,
    DONE,
    NOT_CONTACTED,
    NOWHERE,
    OVER,
    PENDING,
    REFUSED,
    RUNNING,
    SENDING,
    UNAVAILABLE,
    UNKNOWN,
    UP,
    Destination,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
)
from tests.model.destinations.steps import Check


def _ends_rightly(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, config: DestinationsConfig
) -> bool:
    for old, new in zip(before.messages, after.messages, strict=True):
        if new.status == old.status:
            continue
        if new.status == DONE and step.remark not in (ANSWERED, NOT_CONTACTED):
            return False
        if new.status == DEAD and step.remark != UNKNOWN and new.spent <= config.max_retries:
            return False
    return True


def _accounts(
    _before: DestinationsWorld, _step: DestinationStep, after: DestinationsWorld, _config: DestinationsConfig
) -> bool:
    waiting = [row for row in after.messages if row.status in (PENDING, RUNNING)]
    return all(row.attempt == row.spent + (row.status == RUNNING) for row in waiting)


def _spends_for_cause(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, config: DestinationsConfig
) -> bool:
    spent = [
        number
        for number, row in enumerate(after.messages)
        if row.spent > before.messages[number].spent and step.name != "arrive"
    ]
    return step.remark == REFUSED or step.name == "reap_running" or config.poisoned.issuperset(spent)


def _begins_unless_paused(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, config: DestinationsConfig
) -> bool:
    if step.name != "begin":
        return True
    message = int(step.what[1:])
    begun = [hand for hand in after.hands if hand.message == message and hand.phase == SENDING]
    was_begun = any(hand.message == message and hand.phase == SENDING for hand in before.hands)
    return not begun or was_begun or not before.destinations[config.tasks[message]].waited


def _reads_the_pause(
    _before: DestinationsWorld, _step: DestinationStep, after: DestinationsWorld, _config: DestinationsConfig
) -> bool:
    return not any(hand.phase == SENDING and hand.read_pause for hand in after.hands)


def _publishes_for_cause(
    before: DestinationsWorld, step: DestinationStep, _after: DestinationsWorld, _config: DestinationsConfig
) -> bool:
    if step.name != "publish":
        return True
    number = before.messages[int(step.what[1:])].destination
    if number < 0:
        return True
    destination = before.destinations[number]
    return not destination.paused and destination.is_open == (step.remark != "")


def _opens_for_cause(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, config: DestinationsConfig
) -> bool:
    for number, destination in enumerate(after.destinations):
        if destination.is_open and not before.destinations[number].is_open:
            own = config.tasks[int(step.what[1:])] == number
            if not own or step.remark not in (UNAVAILABLE, "claim lost"):
                return False
    return True


def _closes_for_cause(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, config: DestinationsConfig
) -> bool:
    for number, destination in enumerate(before.destinations):
        if destination.is_open and not after.destinations[number].is_open and step.name != "remove":
            message = int(step.what[1:])
            answered = any(hand.message == message and hand.phase in (ANSWERED, REFUSED) for hand in before.hands)
            if not answered or config.tasks[message] != number:
                return False
    return True


def _is_unknown_for_an_hour(
    before: DestinationsWorld, step: DestinationStep, after: DestinationsWorld, _config: DestinationsConfig
) -> bool:
    if step.name != "record" or step.remark != UNKNOWN:
        return True
    message = int(step.what[1:])
    return after.messages[message].status != DEAD or not before.messages[message].was_known


LOST: Final = "done means that the work was done, dead means out of attempts or unknown for an hour"
ACCOUNT: Final = "attempts are those that ended in a failure, and the present one"
SPENT: Final = "an attempt is spent by a refusal, by a worker that died or froze, or by a message that nobody can send"
PAUSED: Final = "nothing begins at a paused destination once `pause --wait` has returned"
READ: Final = "nothing begins that read its destination after a pause"
QUIET: Final = "nothing is published for a paused destination, and for an unavailable one its probes alone"
OPENED: Final = "a destination counts as unavailable only after a send of its own found that"
CLOSED: Final = "a destination counts as available again only after an answer of its own server"
FOREIGN: Final = "an unknown task is a dead letter only if for an hour no worker that claimed it knew it"
PROPERTIES: Final[dict[str, Check]] = {
    LOST: _ends_rightly,
    ACCOUNT: _accounts,
    SPENT: _spends_for_cause,
    PAUSED: _begins_unless_paused,
    READ: _reads_the_pause,
    QUIET: _publishes_for_cause,
    OPENED: _opens_for_cause,
    CLOSED: _closes_for_cause,
    FOREIGN: _is_unknown_for_an_hour,
}


def is_served(world: DestinationsWorld, config: DestinationsConfig, number: int) -> bool:
    """Return whether a destination's messages are over, or wait for its server or an operator."""
    if _waits(world.destinations[number]):
        return True
    return all(
        row.status in OVER
        or config.tasks[message] != number
        # Where its row says something else, that counts until it is claimed.
        or (row.destination not in (number, NOWHERE) and _waits(world.destinations[row.destination]))
        for message, row in enumerate(world.messages)
    )


def _waits(destination: Destination) -> bool:
    return destination.server != UP or (destination.paused and not destination.removed) or destination.locked
