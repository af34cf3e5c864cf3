"""Row locks, statement by statement: who can wait for whom.

A statement that changes several rows locks them one after the other, in the order in which its plan meets them, and
keeps them until its transaction ends. Here every statement of the protocol wants any of two rows, whatever their
status (more than can happen), destinations, or an account and its link, and every interleaving of any three
transactions is visited. A transaction may rest at any point, as a frozen process would until PostgreSQL ends its
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import combinations_with_replacement
from typing import NamedTuple


class LockGuard(Enum):
    """A clause about locks."""

    TAKE_SKIPS = "take_batch: SKIP LOCKED"
    REAP_SKIPS = "reap_running: SKIP LOCKED"
    PROBE_SKIPS = "take_probe: SKIP LOCKED"
    NAME_ORDER = "record: the messages first, then the destinations in the order of their names"
    ACCOUNT_FIRST = "verify and expire: the account's row is locked before its links"
    ID_ORDER = "renew_found, return_missing, retry and discard of many: rows locked in the order of their ids"


class Transaction(NamedTuple):
    """The rows that it locks, in this order, and whether it passes over those that others hold."""

    name: str
    rows: tuple[int, ...]
    skips: bool

    def __str__(self) -> str:
        return f"{self.name} of {' then '.join(map(str, self.rows))}"


class Progress(NamedTuple):
    """How far one transaction is: rows asked for so far, rows locked. `asked` is -1 once it has ended."""

    asked: int = 0
    held: frozenset[int] = frozenset()


ONE_ROW = ((0,), (1,))
ACCOUNT, LINK, ONE_DESTINATION, OTHER_DESTINATION = 2, 3, 4, 5
BY_ID = (*ONE_ROW, (0, 1))
ANY_ORDER = (*BY_ID, (1, 0))


def transactions(without: LockGuard | None = None) -> list[Transaction]:
    many = ANY_ORDER if without is LockGuard.ID_ORDER else BY_ID
    records: tuple[tuple[int, ...], ...] = ((0,), (1, ONE_DESTINATION, OTHER_DESTINATION))
    if without is LockGuard.NAME_ORDER:
        records = (*records, (0, OTHER_DESTINATION, ONE_DESTINATION))
    kinds = [
        # The batch's order is that of queues and due times.
        ("take_batch", ANY_ORDER, without is not LockGuard.TAKE_SKIPS),
        ("reap_running", ANY_ORDER, without is not LockGuard.REAP_SKIPS),
        ("renew_found", many, False),
        ("return_missing", many, False),
        ("retry or discard", many, False),
        ("claim or find_own_claim", ONE_ROW, False),
        ("record", records, False),
        # A relay that has locked a destination for a probe keeps it during the push.
        ("take_probe", ((ONE_DESTINATION, 1),), without is not LockGuard.PROBE_SKIPS),
        # Of accounts it passes over what is locked; the links go with them, and are waited for.
        ("expire", ((ACCOUNT, LINK),), False),
        ("verify", ((LINK, ACCOUNT),) if without is LockGuard.ACCOUNT_FIRST else ((ACCOUNT, LINK),), False),
        # A resend may become part of the account's message that waits for its first claim.
        ("resend or correct", ((ACCOUNT,), (ACCOUNT, 1)), False),
        ("prepare again or count a wrong password", ((LINK,),), False),
    ]
    return [Transaction(name, rows, skips) for name, orders, skips in kinds for rows in orders]


class Moment(NamedTuple):
    """Three transactions and how far each is."""

    transactions: tuple[Transaction, ...]
    progress: tuple[Progress, ...]

    def waits(self) -> dict[int, int]:
        """Which transaction waits for which."""
        waits = {}
        for number, (transaction, (asked, _)) in enumerate(zip(*self, strict=True)):
            if 0 <= asked < len(transaction.rows) and not transaction.skips:
                holder = self._holder(transaction.rows[asked])
                if holder is not None:
                    waits[number] = holder
        return waits

    def waits_in_a_cycle(self) -> bool:
        waits = self.waits()
        for start in waits:
            at: int | None = waits[start]
            for _ in waits:
                if at == start:
                    return True
                at = None if at is None else waits.get(at)
        return False

    def next(self) -> Iterator[Moment]:
        waits = self.waits()
        for number, (transaction, (asked, held)) in enumerate(zip(*self, strict=True)):
            if asked < 0 or number in waits:
                continue
            if asked == len(transaction.rows):
                after = Progress(-1)
            else:
                row = transaction.rows[asked]
                after = Progress(asked + 1, held if self._holder(row) is not None else held | {row})
            yield self._replace(progress=(*self.progress[:number], after, *self.progress[number + 1 :]))

    def _holder(self, row: int) -> int | None:
        return next((number for number, (_, held) in enumerate(self.progress) if row in held), None)

    def __str__(self) -> str:
        holding = [
            f"{transaction} holds {sorted(progress.held) or 'nothing'}"
            for transaction, progress in zip(*self, strict=True)
        ]
        waiting = [
            f"{self.transactions[one]} waits for {self.transactions[other]}" for one, other in self.waits().items()
        ]
        return "\n".join([*holding, *waiting])


def moments(without: LockGuard | None = None) -> Iterator[Moment]:
    """Every moment of every three transactions at once."""
    for three in combinations_with_replacement(transactions(without), 3):
        first = Moment(three, (Progress(),) * 3)
        seen = {first.progress}
        left = [first]
        while left:
            moment = left.pop()
            yield moment
            for after in moment.next():
                if after.progress not in seen:
                    seen.add(after.progress)
                    left.append(after)
