"""The places of a destination that all workers share, of which there is one here.

    worker   claim, lock (the destination's row), take (a place, by what the rows of outbox say then), commit, refuse
             (no place: the message is released), finish
    faults   the worker dies, and a relay reaps its claim: another one may claim the message again

Nobody gives a place back: an entry counts while its message's row runs under the claim that took it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from tests.model.search import Found, search

WAITING: Final = 0  # any other number is the claim under which a message runs
NONE: Final = -1

IDLE: Final = "idle"
CLAIMED: Final = "claimed"
LOCKED: Final = "locked"  # it has locked the destination's row, or has only read it: without a guard
WRITTEN: Final = "written"  # its place is written, not committed
SENDING: Final = "sending"


class PlaceGuard(Enum):
    """One clause of the rules about places."""

    LOCKS_ROW = "take_places: the destination's row is locked FOR UPDATE"
    SNAPSHOT_AFTER_LOCK = "take_places: which messages run is read after the lock"
    ENTRY_NAMES_CLAIM = "take_places: an entry counts while its message runs under the same claim"

    __hash__ = object.__hash__


class Entry(NamedTuple):
    """One place that is taken, as the destination's row says."""

    message: int
    claim: int


class PlaceWorker(NamedTuple):
    """One worker with one message, and what its transaction has read and will write."""

    phase: str = IDLE
    message: int = NONE
    claim: int = WAITING
    read: tuple[Entry, ...] = ()  # the entries that it read
    running: tuple[int, ...] = ()  # the claims that it saw, by message
    entries: tuple[Entry, ...] = ()  # what it writes


class PlacesWorld(NamedTuple):
    """Everything at one moment."""

    claims: tuple[int, ...]  # by message
    entries: tuple[Entry, ...]
    workers: tuple[PlaceWorker, ...]
    faults: int

    def with_worker(self, number: int, worker: PlaceWorker) -> PlacesWorld:
        return self._replace(workers=(*self.workers[:number], worker, *self.workers[number + 1 :]))

    def with_claim(self, message: int, claim: int) -> PlacesWorld:
        return self._replace(claims=(*self.claims[:message], claim, *self.claims[message + 1 :]))


class PlaceStep(NamedTuple):
    """What happened, and whether it happens without a fault."""

    name: str
    message: int
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.name} m{self.message}" + (f" ({self.remark})" if self.remark else "")


def explore_places(without: PlaceGuard | None = None, *, messages: int = 2, faults: int = 1) -> Found[PlacesWorld]:
    """Visit every world that can be reached, until more than one message is in a place."""

    def keeps_limit(_before: PlacesWorld, _step: PlaceStep, after: PlacesWorld) -> bool:
        return sum(worker.phase == SENDING for worker in after.workers) <= 1

    return search(
        PlacesWorld((WAITING,) * messages, (), (PlaceWorker(), PlaceWorker()), faults),
        lambda world: _steps(world, without),
        {"no more messages are in hand than there are places": keeps_limit},
    )


def _steps(world: PlacesWorld, without: PlaceGuard | None) -> Iterator[tuple[PlaceStep, PlacesWorld]]:
    for number, worker in enumerate(world.workers):
        message = worker.message
        if worker.phase == IDLE:
            yield from _claim(world, number)
            continue
        if world.faults:
            # Dead, and reaped after its lease: then nobody works on the message.
            dead = world.with_claim(message, WAITING).with_worker(number, PlaceWorker())
            yield PlaceStep("die", message, is_own=False), dead._replace(faults=world.faults - 1)
        if worker.phase == CLAIMED:
            yield from _lock(world, number, without)
        elif worker.phase == LOCKED:
            yield _take(world, number, without)
        elif worker.phase == WRITTEN:
            in_place = worker._replace(phase=SENDING, read=(), running=(), entries=())
            yield (
                PlaceStep("commit", message),
                world.with_worker(number, in_place)._replace(entries=worker.entries),
            )
        else:
            done = world.with_claim(message, WAITING).with_worker(number, PlaceWorker())
            yield PlaceStep("finish", message), done


def _claim(world: PlacesWorld, number: int) -> Iterator[tuple[PlaceStep, PlacesWorld]]:
    """A claim's number is one that nothing remembers."""
    known = {*world.claims, *(entry.claim for entry in world.entries)}
    for worker in world.workers:
        known |= {worker.claim, *worker.running, *(entry.claim for entry in worker.read + worker.entries)}
    fresh = next(number for number in range(1, len(known) + 2) if number not in known)
    for message, claim in enumerate(world.claims):
        if claim == WAITING:
            claimed = world.with_claim(message, fresh).with_worker(number, PlaceWorker(CLAIMED, message, fresh))
            yield PlaceStep("claim", message, f"claim {fresh}"), claimed


def _lock(world: PlacesWorld, number: int, without: PlaceGuard | None) -> Iterator[tuple[PlaceStep, PlacesWorld]]:
    worker = world.workers[number]
    if without is PlaceGuard.SNAPSHOT_AFTER_LOCK and not worker.running:
        early = worker._replace(running=world.claims)
        yield PlaceStep("read", worker.message, "which messages run"), world.with_worker(number, early)
        return
    is_locked = any(other.phase in (LOCKED, WRITTEN) for other in world.workers)
    if not is_locked or without is PlaceGuard.LOCKS_ROW:
        running = worker.running or world.claims
        locked = worker._replace(phase=LOCKED, read=world.entries, running=running)
        yield PlaceStep("lock", worker.message), world.with_worker(number, locked)


def _take(world: PlacesWorld, number: int, without: PlaceGuard | None) -> tuple[PlaceStep, PlacesWorld]:
    worker = world.workers[number]
    kept = [entry for entry in worker.read if _counts(entry, worker, without)]
    if kept and kept != [Entry(worker.message, worker.claim)]:
        released = world.with_claim(worker.message, WAITING).with_worker(number, PlaceWorker())
        return PlaceStep("refuse", worker.message), released
    entries = (Entry(worker.message, worker.claim),)
    taken = worker._replace(phase=WRITTEN, entries=entries)
    return PlaceStep("take", worker.message), world.with_worker(number, taken)


def _counts(entry: Entry, worker: PlaceWorker, without: PlaceGuard | None) -> bool:
    running = worker.running[entry.message]
    if without is PlaceGuard.ENTRY_NAMES_CLAIM:
        return running != WAITING
    return running == entry.claim
