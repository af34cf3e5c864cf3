"""The state of the model of `handle`: messages, and the places of the workers that run their handlers."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

PUBLISHED: Final = "published"
RUNNING: Final = "running"
DONE: Final = "done"
DEAD: Final = "dead"

# What a handler does.
ENDS: Final = "ends"  # returns or raises, in time or not
NEVER_ENDS: Final = "never ends"
APPENDS_WHAT_IS_REFUSED: Final = "appends what is refused"

# What a place is in the middle of.
IDLE: Final = "idle"
CLAIMED: Final = "claimed"
WORKING: Final = "working"  # the handler runs
RETURNED: Final = "returned"  # the acknowledgement comes next, with what was appended
APPENDED: Final = "appended"  # what was appended is committed alone: only without a guard
RAISED: Final = "raised"  # fail comes next
TOO_LATE: Final = "too late"  # nothing was begun: release comes next
OVERTIME: Final = "overtime"  # fail comes next, and the handler still runs
LOST: Final = "lost"  # the attempt has failed, and the handler still runs
BEFORE_RESULT: Final = frozenset({CLAIMED, WORKING, RETURNED, APPENDED})

NOBODY: Final = -1
GONE: Final = -2  # its worker died
SHUT_DOWN: Final = -3  # its worker was asked to end


class HandleGuard(Enum):
    """One clause of the rules about handlers."""

    BEGIN_UNTIL = "begin: only while enough of the lease is left"
    RENEW = "renew: the leases of handlers that run are renewed"
    RENEW_TOKEN = "renew: claim_token=:t"  # noqa: S105 - a clause, not a password
    RENEW_UNTIL = "renew: no longer than timeout_seconds, then the attempt fails"
    LATE_TWICE = "fail: a handler that was late twice is a dead letter"
    EXIT = "worker: one that has lost half of its places ends, and is started again"
    ACK_TOKEN = "ack: claim_token=:t"  # noqa: S105 - the same
    APPENDS_IN_ACK = "ack: what was appended is written in the same commit"
    APPENDS_FROM_ACK = "ack: only for the rows that this very statement has finished"
    APPENDS_REFUSED = "ack: if what was appended is refused, the attempt fails"
    SHUTDOWN_RELEASES = "shutdown: handlers that still run are released before the process ends"

    __hash__ = object.__hash__


class Task(NamedTuple):
    """One message. The last five fields are history for the properties; no step reads them."""

    status: str = PUBLISHED
    attempt: int = 0
    token: int = NOBODY
    lease_over: bool = False
    lates: int = 0  # how often its handler ran past its time
    calls: int = 0
    call_owed: bool = True  # False once a handler has begun, True again when something excuses another call
    children: int = 0  # appended messages that are committed
    spent: int = 0


class Place(NamedTuple):
    """One thread of a worker."""

    worker: int
    phase: str = IDLE
    message: int = NOBODY
    late: bool = False  # frozen past its lease
    unsure: bool = False  # the answer to its acknowledgement's COMMIT was lost


class HandleWorld(NamedTuple):
    """Everything at one moment."""

    tasks: tuple[Task, ...]
    places: tuple[Place, ...]
    faults: int
    shutdowns: int

    def with_task(self, number: int, task: Task) -> HandleWorld:
        return self._replace(tasks=(*self.tasks[:number], task, *self.tasks[number + 1 :]))

    def with_place(self, number: int, place: Place) -> HandleWorld:
        return self._replace(places=(*self.places[:number], place, *self.places[number + 1 :]))


class HandleConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    kinds: tuple[str, ...] = (ENDS,)
    workers: tuple[int, ...] = (1, 1)  # how many places each has
    max_retries: int = 1
    faults: int = 1
    shutdowns: int = 0
    without: frozenset[HandleGuard] = frozenset()

    def keeps(self, guard: HandleGuard) -> bool:
        return guard not in self.without

    def initial(self) -> HandleWorld:
        places = tuple(Place(worker) for worker, count in enumerate(self.workers) for _ in range(count))
        return HandleWorld((Task(),) * len(self.kinds), places, self.faults, self.shutdowns)


class HandleStep(NamedTuple):
    """What happened, by which place or to which message, and whether without a fault and without a person."""

    name: str
    who: str
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.who}: {self.name}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[HandleStep, HandleWorld]
