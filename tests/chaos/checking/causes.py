"""Find the fault that caused each attempt spent and each mail that arrived twice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.checking.evidence import AppliedFault, Call, Claim, Copy

_SLACK_SECONDS: Final = 0.5
"""Between what a fault does and the moment that is noted for it."""

_SAME_MOMENT_SECONDS: Final = 0.05
_ANY_WORKER_FAULT: Final = ("worker-kill", "worker-stop", "worker-term")
_SILENT_AFTER_DOT: Final = ("mail-kill", "mail-hang-after-dot", "mail-drop-after-accept")

_LEASE_ENDED: Final = "the worker died or froze"

_CAUSES: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    (_LEASE_ENDED, _ANY_WORKER_FAULT, ()),
    ("the worker froze", ("worker-stop",), ()),
    ("no answer after the mail was sent", ("worker-stop",), _SILENT_AFTER_DOT),
    ("JobTimeoutException while the mail was sent", ("worker-stop",), _SILENT_AFTER_DOT),
    ("JobTimeoutException after the mail was sent", ("worker-stop",), _SILENT_AFTER_DOT),
    ("refused: 451", (), ("mail-451",)),
)
"""How a reason begins; the faults of the worker that had the claim, and those of the mail server, that explain it."""

_KEEPS_NO_MAIL: Final = "mail-hang-after-dot"
_POSTGRES: Final = ("postgres-immediate", "postgres-kill", "postgres-backend-kill", "postgres-stop")


@dataclass(frozen=True, slots=True)
class Cause:
    """What spent a claim's attempt.

    Attributes:
        is_outage: PostgreSQL was lost meanwhile, and nothing else: that should have cost no attempt.

    """

    text: str
    is_outage: bool = False


def cause_of(claim: Claim, faults: Iterable[AppliedFault]) -> Cause | None:
    """Name what spent this claim's attempt, or None when the run did nothing that could have."""
    meanwhile = _during(claim, faults)
    for beginning, of_worker, of_mail in _CAUSES:
        if not claim.reason.startswith(beginning):
            continue
        for fault in meanwhile:
            if fault.kind in of_mail or (fault.kind in of_worker and fault.target == claim.by):
                return Cause(f"{claim.reason}: {fault.kind} of {fault.target}")
        lost = [fault for fault in meanwhile if fault.kind in _POSTGRES]
        if lost and beginning == _LEASE_ENDED:
            return Cause(f"{claim.reason}: {lost[0].kind}", is_outage=True)
    return None


@dataclass(frozen=True, slots=True)
class Extra:
    """One mail too many, and the claim that sent it without becoming done; the cause is None when there is none."""

    message_id: int
    copy: Copy | None
    claim: Claim | None
    cause: Cause | None


def explain_copies(copies: Sequence[Copy], claims: Sequence[Claim], faults: Sequence[AppliedFault]) -> list[Extra]:
    """Explain the copies of one message beyond the first.

    Each copy was sent under a claim of its own. All of these but one ended without an acknowledgement, and for each of
    those the service has to say that the mail may have been taken, and the run has to know why.
    """
    faults = [fault for fault in faults if fault.kind != _KEEPS_NO_MAIL]
    left = sorted(claims, key=lambda claim: claim.began)
    unfinished: list[Extra] = []
    finished: list[Extra] = []
    for copy in sorted(copies, key=lambda copy: copy.arrived_at, reverse=True):
        claim = _sender(copy, left)
        if claim is not None:
            left.remove(claim)
        cause = None if claim is None or not claim.maybe_accepted else cause_of(claim, faults)
        (finished if claim is not None and claim.end == "done" else unfinished).append(
            Extra(copy.message_id or 0, copy, claim, cause)
        )
    # One copy is the mail itself: the acknowledged one, or the last.
    return [*finished[1:], *unfinished] if finished else unfinished[1:]


def explain_calls(calls: Sequence[Call], claims: Sequence[Claim], faults: Iterable[AppliedFault]) -> list[Cause | None]:
    """Return the cause of each request of a handler that was not the one that counted.

    A handler runs at least once: again where its worker died, stopped or froze meanwhile, or PostgreSQL was lost.
    """
    left = sorted(claims, key=lambda claim: claim.began)
    causes: list[Cause | None] = []
    for call in sorted(calls, key=lambda call: call.arrived_at, reverse=True):
        claim = _sender(call, left)
        if claim is None:
            causes.append(None)
            continue
        left.remove(claim)
        if claim.end in {"done", "open"}:
            continue
        causes.append(_loss_during(claim, faults))
    return causes


def _loss_during(claim: Claim, faults: Iterable[AppliedFault]) -> Cause | None:
    for fault in _during(claim, faults):
        if fault.kind in _POSTGRES or (fault.kind in _ANY_WORKER_FAULT and fault.target == claim.by):
            return Cause(f"{claim.reason}: {fault.kind} of {fault.target}")
    return None


def _during(claim: Claim, faults: Iterable[AppliedFault]) -> list[AppliedFault]:
    return [
        fault
        for fault in faults
        if fault.began <= claim.ended + _SLACK_SECONDS and fault.ended >= claim.began - _SLACK_SECONDS
    ]


def _sender(copy: Copy | Call, claims: Sequence[Claim]) -> Claim | None:
    """Find the claim under which a copy was sent: the last that was open when it arrived, else the last before it.

    A worker that freezes between its check of the lease and the dot may send after its claim was ended.
    """
    before = [claim for claim in claims if claim.began <= copy.arrived_at + _SAME_MOMENT_SECONDS]
    during = [claim for claim in before if claim.ended >= copy.arrived_at - _SAME_MOMENT_SECONDS]
    found = during or before
    return found[-1] if found else None
