"""The state of the model of `Done()`: messages, the transactions that prepare them, and what is committed."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

PUBLISHED: Final = "published"
RUNNING: Final = "running"
DONE: Final = "done"
DEAD: Final = "dead"

# What a message's preparation returns.
EFFECT: Final = "Done()"  # everything is in the transaction, and so is the acknowledgement
MAIL: Final = "Mail"  # a record in the transaction, and a mail after it
COMMITS: Final = "commits"  # Done(), of a task whose SQL ends the transaction
REFUSED: Final = "refused"  # Done(), and PostgreSQL refuses the COMMIT

# What a hand is in the middle of.
IDLE: Final = "idle"
CLAIMED: Final = "claimed"  # its batch is to be prepared
PREPARED: Final = "prepared"  # the work is in a transaction
ACKED: Final = "acked"  # the acknowledgement too: COMMIT comes next
ASKING: Final = "asking"  # which messages are still its own?
EFFECTIVE: Final = "effective"  # the work is committed and not acknowledged: only without a guard
BROKEN: Final = "broken"  # the task has ended the transaction
HANDING_ON: Final = "handing on"  # committed: mails are to be sent

NOBODY: Final = -1
GONE: Final = -2


class DoneGuard(Enum):
    """One clause of the rules about `Done()`."""

    SAME_COMMIT = "ack: the last statement of the transaction that holds the work"
    ALL_OR_NOTHING = "ack: fewer than were Done(): everything is rolled back"
    ACK_TOKEN = "ack: claim_token=:t"  # noqa: S105 - a clause, not a password
    MARKER_IN_ACK = "ack: only while the transaction's marker is set"
    BROKEN_IS_DEAD = "prepare: a task that ended the transaction makes a dead letter"
    OURS_LOCKED = "prepare again: of those that are still ours, FOR UPDATE, so that a COMMIT in doubt is waited for"
    MAILS_AFTER_COMMIT = "prepare: mails are handed on after the COMMIT was answered"
    COMMIT_REFUSED = "commit: an error from PostgreSQL is a failed attempt, not a lost answer"

    __hash__ = object.__hash__


class Work(NamedTuple):
    """One message. The last four fields count what is committed, or sent."""

    status: str = PUBLISHED
    attempt: int = 0
    token: int = NOBODY
    effects: int = 0
    records: int = 0
    mails: int = 0
    spent: int = 0


class Hand(NamedTuple):
    """One worker with the messages that it has claimed together."""

    phase: str = IDLE
    batch: tuple[int, ...] = ()
    locks: tuple[int, ...] = ()  # rows that its transaction has locked
    late: bool = False  # frozen past its lease


class InDoubt(NamedTuple):
    """A COMMIT whose answer was lost: PostgreSQL decides on it later, and holds its locks until then."""

    by: int
    batch: tuple[int, ...]
    acked: tuple[int, ...]


class DoneWorld(NamedTuple):
    """Everything at one moment."""

    rows: tuple[Work, ...]
    hands: tuple[Hand, ...]
    doubt: InDoubt | None = None
    faults: int = 0

    def with_row(self, number: int, row: Work) -> DoneWorld:
        return self._replace(rows=(*self.rows[:number], row, *self.rows[number + 1 :]))

    def with_hand(self, number: int, hand: Hand) -> DoneWorld:
        return self._replace(hands=(*self.hands[:number], hand, *self.hands[number + 1 :]))

    def locked_for(self, number: int, hand: int = NOBODY) -> bool:
        """Return whether another transaction than this hand's has locked the row."""
        if self.doubt is not None and number in self.doubt.acked:
            return True
        return any(number in each.locks for other, each in enumerate(self.hands) if other != hand)


class DoneConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    kinds: tuple[str, ...] = (EFFECT, EFFECT)
    hands: int = 2
    max_retries: int = 0
    faults: int = 1
    without: frozenset[DoneGuard] = frozenset()

    def keeps(self, guard: DoneGuard) -> bool:
        return guard not in self.without

    def is_done_by(self, number: int) -> bool:
        """Return whether the message's acknowledgement belongs to its preparation."""
        return self.kinds[number] != MAIL

    def initial(self) -> DoneWorld:
        return DoneWorld((Work(),) * len(self.kinds), (Hand(),) * self.hands, faults=self.faults)


class DoneStep(NamedTuple):
    """What happened, by which hand or to which message, and whether it happens without a fault."""

    name: str
    who: str
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.who}: {self.name}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[DoneStep, DoneWorld]
