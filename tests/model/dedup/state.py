"""The state of the model of dedup keys: the messages of one task and key, those who append them, and a worker.

What the work reads is a number that grows with each append, in the order of their commits: the payload of the latest
append, and what was written beside it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

WAITING: Final = "waiting"  # for its first claim
RUNNING: Final = "running"
RELEASED: Final = "released"  # it waits for a later claim
DEAD: Final = "dead"
DONE: Final = "done"
DISCARDED: Final = "discarded"
OVER: Final = frozenset({DONE, DISCARDED})

# What an appender is in the middle of.
TO_APPEND: Final = "to append"
APPENDED: Final = "appended"  # not committed
COMMITTED: Final = "committed"
ROLLED_BACK: Final = "rolled back"

# What a worker is in the middle of.
IDLE: Final = "idle"
READ: Final = "read"  # it has read the payload and not claimed: only without a guard
AT_WORK: Final = "at work"

NOBODY: Final = -1
SOON: Final = 0
LATER: Final = 1


class DedupGuard(Enum):
    """One clause of the rules about dedup keys."""

    UNIQUE = "outbox_dedup_idx: UNIQUE"
    CLAIM_FREES_KEY = "outbox_dedup_idx: WHERE claimed_at IS NULL"
    APPEND_UPDATES = "append: ON CONFLICT DO UPDATE, which locks the row, not DO NOTHING"
    NEWER_PAYLOAD = "append: payload = excluded.payload"
    EARLIER_DUE = "append: due_at = least(outbox.due_at, excluded.due_at)"
    CLAIM_WAITS = "claim: waits for the row's lock, and reads what was committed meanwhile"
    CLAIM_READS = "claim: it returns the payload, which nothing reads earlier"
    FREED_FOR_GOOD = "release, fail, retry: claimed_at stays"

    __hash__ = object.__hash__


class KeyedRow(NamedTuple):
    """One row. `data` is the number of the latest append that it is for, as committed."""

    status: str = WAITING
    data: int = NOBODY
    due: int = SOON
    has_key: bool = True  # it stands in the unique index


class Change(NamedTuple):
    """What an appender's open transaction will leave: a row of its own, or another payload in one that waits."""

    row: int  # NOBODY: a row of its own
    due: int
    locks: bool = True
    has_key: bool = True


class Appender(NamedTuple):
    """One transaction that writes something and appends the work for it."""

    phase: str = TO_APPEND
    change: Change | None = None
    data: int = NOBODY  # its number in the order of commits


class DedupWorker(NamedTuple):
    """What a worker does with one row, and what it has read for that."""

    phase: str = IDLE
    row: int = NOBODY
    data: int = NOBODY


class DedupWorld(NamedTuple):
    """Everything at one moment. `served` is history: the numbers that some work, done or not yet, has read."""

    rows: tuple[KeyedRow, ...]
    appenders: tuple[Appender, ...]
    worker: DedupWorker
    commits: int
    orders: int
    served: frozenset[int]

    def with_row(self, number: int, row: KeyedRow) -> DedupWorld:
        return self._replace(rows=(*self.rows[:number], row, *self.rows[number + 1 :]))

    def with_appender(self, number: int, appender: Appender) -> DedupWorld:
        return self._replace(appenders=(*self.appenders[:number], appender, *self.appenders[number + 1 :]))

    def locked(self, row: int) -> bool:
        """Return whether an append that is not committed has locked the row."""
        return any(each.change is not None and each.change.locks and each.change.row == row for each in self.appenders)


class DedupConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    dues: tuple[int, ...] = (SOON, LATER, SOON)  # when each append wants its work
    orders: int = 0
    without: frozenset[DedupGuard] = frozenset()

    def keeps(self, guard: DedupGuard) -> bool:
        return guard not in self.without

    def initial(self) -> DedupWorld:
        return DedupWorld((), (Appender(),) * len(self.dues), DedupWorker(), 0, self.orders, frozenset())


class DedupStep(NamedTuple):
    """What happened, by which appender or to which row, and whether it happens without a person."""

    name: str
    who: str
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.who}: {self.name}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[DedupStep, DedupWorld]
