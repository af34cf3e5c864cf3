"""The state of the model of outages by policy: what can be seen at one moment.

A mail server that refuses a recipient by policy (5.7.x) may mean the recipient or us. steps.py has the steps, and says
what is left out; test_policy.py what has to hold.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

PENDING: Final = "pending"
RUNNING: Final = "running"
DEAD: Final = "dead"
DONE: Final = "done"
DISCARDED: Final = "discarded"

IDLE: Final = "idle"
CLAIMED: Final = "claimed"
REFUSED: Final = "refused"  # by policy
TO_FAIL: Final = "to fail"  # refused, and the breaker was read: the attempt is to be spent
TO_RELEASE: Final = "to release"  # the same, but the attempt is to be given back
ACCEPTED: Final = "accepted"
UNKNOWN_USER: Final = "unknown user"  # refused for good, and not by policy

NEVER: Final = 0  # it was not refused by policy
SINCE: Final = 1  # nothing was accepted since
BEFORE: Final = 2  # something was accepted since

NOT_NOTED: Final = ""
NOTED: Final = "noted"  # the row is as the refusal left it
IN_HAND: Final = "in hand"  # it was claimed since
OUTDATED: Final = "outdated"  # it has another generation by now

NOBODY: Final = -1


class PolicyGuard(Enum):
    """One clause of the rules about refusals by policy."""

    FIRST_REFUSAL = "note: a refusal counts only if nothing was accepted since the message's first one"
    SAME_LIFE = "return_attempts: generation and attempt are as the refusal left them"
    WRITTEN = "note: only a refusal whose row was ours"
    FIRST_RELEASE = "record: a first refusal is remembered, also where it gives its attempt back"
    RELEASE = "record: in such an outage a refusal gives its attempt back"
    SPEND = "record: but not to one that was refused before and after another was accepted"
    GIVE_BACK_LATE = "note: in such an outage what is noted is given back, whenever it is noted"
    STAYS_OPEN = "learn: such an outage ends with an accepted mail alone"

    __hash__ = object.__hash__


class Message(NamedTuple):
    """One message. The last four fields are history for the properties; no step reads them."""

    status: str = PENDING
    attempt: int = 0
    first: int = NEVER  # the first refusal by policy that it remembers
    last: int = NEVER  # the last one: all that spent an attempt, and the first one that did not
    noted: str = NOT_NOTED  # on the breaker's row, so that its attempts may be given back
    spent: int = 0  # how many attempts the note stands for
    account: int = 0  # attempts that were spent and not given back in this series
    owed: int = 0  # of these, those that are to be given back if an outage is declared now
    given_back: int = 0  # how often it was given something back
    met: int = NEVER  # its very first refusal by policy


class Worker(NamedTuple):
    """One process with at most one message in hand."""

    phase: str = IDLE
    message: int = NOBODY
    is_probe: bool = False
    in_doubt: bool = False  # the answer to its commit was lost: it writes the same again


class PolicyWorld(NamedTuple):
    """Everything at one moment."""

    messages: tuple[Message, ...]
    workers: tuple[Worker, ...]
    is_open: bool = False  # an outage by policy is declared
    refuses_all: bool = False
    switches: int = 0  # how often the server may still change its mind
    faults: int = 0
    orders: int = 0

    def with_message(self, number: int, message: Message) -> PolicyWorld:
        return self._replace(messages=(*self.messages[:number], message, *self.messages[number + 1 :]))

    def with_worker(self, number: int, worker: Worker) -> PolicyWorld:
        return self._replace(workers=(*self.workers[:number], worker, *self.workers[number + 1 :]))


class PolicyConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    good: int = 1  # messages that a server in its right mind accepts
    bad: int = 2  # messages that it always refuses by policy
    enough: int = 2  # refusals of different recipients that make an outage
    workers: int = 2
    max_retries: int = 0
    switches: int = 0
    faults: int = 0
    orders: int = 0
    unknown_users: bool = False
    without: frozenset[PolicyGuard] = frozenset()

    def keeps(self, guard: PolicyGuard) -> bool:
        return guard not in self.without

    def is_good(self, message: int) -> bool:
        return message < self.good

    def initial(self, *, refuses_all: bool = False) -> PolicyWorld:
        return PolicyWorld(
            (Message(),) * (self.good + self.bad),
            (Worker(),) * self.workers,
            refuses_all=refuses_all,
            switches=self.switches,
            faults=self.faults,
            orders=self.orders,
        )
