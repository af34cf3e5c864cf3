"""The evidence of a chaos run in plain values, so that the checks need no server."""

from dataclasses import dataclass, field
from typing import Literal

from tests.chaos.supervisor import Exit

End = Literal["done", "given back", "spent", "dead", "open"]
"""What became of a claim: `spent` is an attempt that failed or whose lease a relay found to be over."""


@dataclass(slots=True)
class Signup:
    """A user who signs up, and the answers that the user got.

    Attributes:
        acknowledged_by: 201, or 200 for the user's own account at a repetition; None without a clear answer.
        answers: how many of each the user got, by status or by the error's name.

    """

    username: str
    email: str
    acknowledged_by: int | None = None
    answers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail that arrived.

    Attributes:
        message_id: the message that its Message-ID names, None when that names no message of the database.
        is_authentic: its link was signed for this address.
        arrived_at: seconds since 1970, as all times here.

    """

    name: str
    message_id: int | None
    recipient: str
    link: str
    is_authentic: bool
    arrived_at: float


@dataclass(frozen=True, slots=True)
class Message:
    """A message at the end of the run."""

    id: int
    username: str | None
    status: str


@dataclass(frozen=True, slots=True)
class Job:
    """A message of one of the run's own tasks that was committed."""

    number: int
    task: str
    message_id: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request that the slow service got.

    Attributes:
        key: the idempotency key that it came with.

    """

    job: int
    key: str
    arrived_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a message, from the record that the database kept.

    Attributes:
        by: the process that claimed it.
        ended_by: the process that ended it: the same, or the relay that took it back.
        reason: why it was spent.
        maybe_accepted: the service itself says that the mail may have been taken.

    """

    message_id: int
    by: str
    attempt: int
    began: float
    ended: float
    end: End
    ended_by: str = ""
    reason: str = ""
    maybe_accepted: bool = False


@dataclass(frozen=True, slots=True)
class AppliedFault:
    """A fault that happened."""

    kind: str
    target: str
    variant: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it.

    Attributes:
        users: the address of each committed user, by name.
        messages: those that the database holds at the end, live and finished ones, by id.
        seen_ids: messages that are known to have been committed: by the database's record, by the API's log, by a mail.
        seconds_to_answers: from the end of the faults to the last answer that a user waited for.
        seconds_to_quiet: from the end of the faults to an empty outbox; None when it did not become empty.
        jobs: what the run appended for its own tasks.
        effects: the jobs whose effects are in the database, a job once for each effect.
        calls: what the slow service was asked.

    """

    signups: list[Signup]
    users: dict[str, str]
    messages: dict[int, Message]
    seen_ids: set[int]
    claims: list[Claim]
    copies: list[Copy]
    faults: list[AppliedFault]
    exits: list[Exit]
    seconds_to_answers: float
    seconds_to_quiet: float | None
    jobs: list[Job] = field(default_factory=list)
    effects: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
