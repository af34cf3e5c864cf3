"""The state of the model of destinations: messages, destinations and workers at one moment.

steps.py has the steps, and says what is left out; test_destinations.py what has to hold.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

PENDING: Final = "pending"
PUBLISHED: Final = "published"
RUNNING: Final = "running"
DONE: Final = "done"
DEAD: Final = "dead"
DISCARDED: Final = "discarded"
OVER: Final = frozenset({DONE, DEAD, DISCARDED})

# A destination, by its number. A row without one has NOWHERE until it is claimed.
A: Final = 0
B: Final = 1
C: Final = 2
NOWHERE: Final = -1

# What the server of a destination does.
UP: Final = "up"
DOWN: Final = "down"  # a send finds nobody
HANGS: Final = "hangs"  # a send takes for ever

# What a hand is in the middle of: a claim with its place, if it has one. The last five wait to be recorded.
IDLE: Final = "idle"
READ_FIRST: Final = "read first"  # the destination was read, nothing is claimed: only without a guard
CLAIMED: Final = "claimed"
READY: Final = "ready"  # the destination was read: neither paused nor unavailable
SENDING: Final = "sending"  # in a place
BLOCKED: Final = "blocked"  # nothing was begun: its attempt is given back
UNKNOWN: Final = "unknown task"
ANSWERED: Final = "answered"
REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"
NOT_CONTACTED: Final = "not contacted"  # it is done, and the destination was not asked
RESULTS: Final = frozenset({BLOCKED, UNKNOWN, ANSWERED, REFUSED, UNAVAILABLE, NOT_CONTACTED})

# How long the task of a message has been unknown to those who claimed it.
KNOWN: Final = 0
UNKNOWN_LATELY: Final = 1
UNKNOWN_FOR_AN_HOUR: Final = 2

NOBODY: Final = -1
MOST_UNAVAILABLE: Final = 2  # a hundred, in reality


class DestinationGuard(Enum):
    """One clause of the rules about destinations."""

    TAKE_EACH = "take_batch: for each destination its own oldest messages"
    TAKE_OPEN = "take_batch: of an unavailable destination only its probe"
    TAKE_PAUSED = "take_batch, take_probe: nothing of a paused destination"
    PROBE_TIMEOUT = "take_probe: another one when the result of a probe is not known in time"
    CLAIM_FILLS_IN = "claim: a row without a destination gets the task's"
    CLAIM_CORRECTS = "claim: the task's destination replaces another one"
    CLAIM_KNOWS = "claim: a worker that knows the task removes the mark of the unknown task"
    READ_AFTER_CLAIM = "prepare: the destination is read after the claim's commit"
    READ_PAUSE = "prepare: a paused destination's message is released"
    BEGIN_UNTIL = "begin: only while enough of the lease is left"
    NEW_IS_SLOW = "begin: a destination counts as slow until one of its sends was quick"
    SLOW_TOGETHER = "begin: slow destinations hold half of the places together"
    PROBE_IS_SLOW = "begin: a probe counts as slow"
    NO_PLACE_RELEASES = "begin: what gets no place is released"
    RELEASE_GIVES_BACK = "release: attempt - 1"
    CONTACT_CLOSES = "record: only an answer of the destination closes its breaker"
    BREAKER_SKIPS = "record: a destination's row that is locked is skipped"
    COUNT_OPENINGS = (
        "record: who finds the destination unavailable is counted only if it was available when it was read"
    )
    COUNT_WRITTEN = "record: nor is it counted if the destination's row is locked, so that nothing opens its breaker"
    UNAVAILABLE_ENDS = "record: who opened it too often fails"
    UNKNOWN_ENDS = "record: an unknown task is a dead letter after an hour"
    REMOVE_ENDS_PAUSE = "remove: the destination's row is deleted with the endpoint"

    __hash__ = object.__hash__


class Message(NamedTuple):
    """One row of outbox. The last two fields are history for the properties; no step reads them."""

    status: str = PENDING
    attempt: int = 0
    due: bool = True
    destination: int = NOWHERE
    openings: int = 0  # how often it found its destination unavailable that was available for others
    unknown: int = KNOWN
    spent: int = 0  # attempts that ended in a failure
    was_known: bool = False  # since the mark of the unknown task was set, a worker that knows it has claimed it


class Destination(NamedTuple):
    """One row of outbox_destinations, the server behind it, and what the worker remembers of it."""

    server: str = UP
    is_open: bool = False
    probe: int = NOBODY
    probe_due: bool = False
    paused: bool = False
    waited: bool = False  # `pause --wait` has returned
    removed: bool = False
    locked: bool = False  # by a transaction of an operator
    is_quick: bool = False  # one of its latest sends was


class Hand(NamedTuple):
    """What a worker does with one message. `read_pause` is history: the real destination was paused when it read."""

    knows: bool = True  # every task
    phase: str = IDLE
    message: int = NOBODY
    destination: int = NOWHERE  # the claim's
    former: int = NOWHERE  # the row's, before the claim
    read_open: bool = False  # the destination was unavailable when it was read
    is_probe: bool = False
    is_holder: bool = False  # the message's present claim is its own
    late: bool = False  # frozen past its lease
    read_pause: bool = False


class DestinationsWorld(NamedTuple):
    """Everything at one moment."""

    messages: tuple[Message, ...]
    destinations: tuple[Destination, ...]
    hands: tuple[Hand, ...]
    switches: int  # how often a server may still change
    faults: int
    orders: int

    def with_message(self, number: int, message: Message) -> DestinationsWorld:
        return self._replace(messages=(*self.messages[:number], message, *self.messages[number + 1 :]))

    def with_destination(self, number: int, destination: Destination) -> DestinationsWorld:
        if number < 0:
            return self
        return self._replace(destinations=(*self.destinations[:number], destination, *self.destinations[number + 1 :]))

    def with_hand(self, number: int, hand: Hand) -> DestinationsWorld:
        return self._replace(hands=(*self.hands[:number], hand, *self.hands[number + 1 :]))


class DestinationsConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    tasks: tuple[int, ...] = (A, B)  # for each message the destination of its task
    rows: tuple[int, ...] = ()  # for each message the destination in its row, where that is another one
    destinations: tuple[Destination, ...] = (Destination(), Destination())
    knowing: tuple[bool, ...] = (True, True)  # for each hand whether it knows every task
    max_retries: int = 0
    switches: int = 0
    faults: int = 0
    orders: int = 0
    locks: bool = False  # whether an operator may lock a destination's row
    removes: bool = False  # whether an operator may remove a destination
    poisoned: frozenset[int] = frozenset()  # messages that say of any destination that it is unavailable
    arrives: bool = False  # whether a message takes the place of one that is over
    not_contacted: bool = False  # whether a message may be done without its destination
    without: frozenset[DestinationGuard] = frozenset()

    def keeps(self, guard: DestinationGuard) -> bool:
        return guard not in self.without

    def fresh(self, number: int) -> Message:
        return Message(destination=(self.rows or self.tasks)[number])

    def initial(self) -> DestinationsWorld:
        return DestinationsWorld(
            tuple(self.fresh(number) for number in range(len(self.tasks))),
            self.destinations,
            tuple(Hand(knows) for knows in self.knowing),
            self.switches,
            self.faults,
            self.orders,
        )


class DestinationStep(NamedTuple):
    """What happened, to which message or destination, and whether it happens without a fault and without a person."""

    name: str
    what: str
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.what}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[DestinationStep, DestinationsWorld]


def name_of(destination: int) -> str:
    return "ABC"[destination] if destination != NOWHERE else "nowhere"
