"""Outages by policy: a mail server that refuses several recipients with the same policy code refuses us, not them.

A refusal by policy (5.7.x) fails its message's attempt. Three different recipients that are refused with the same
code, with no mail accepted in between, are an outage. It is noted on the breaker's row, and the attempts spent on it
are given back. Until a mail is accepted, refusals by policy spend nothing.

Two rules make every message end, even if the server never accepts some of them. First, a refusal counts only if no
mail was accepted since its message's first refusal, so the same few messages declare an outage once only. Second,
during an outage a message still spends an attempt if another mail was accepted since it last spent one.
tests/model/policy/steps.py checks both, and shows what goes wrong without each clause.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import structlog

from consumer.model.message import Recipient
from shared.database.connections import DbConnection
from shared.outbox.claiming import policy_refusals
from shared.outbox.claiming.policy_refusals import PolicyStatus, Refusal, RowState
from shared.outbox.columns import LARGEST_NUMBER
from shared.outbox.destinations import breaker
from shared.outbox.messages import MAIL

_log = structlog.get_logger(__name__)

ENOUGH_RECIPIENTS: Final = 3
_REFUSALS_KEPT: Final = 100
"""The newest refusals that are kept. Older ones (of one domain, while other mail waits) stay spent."""
_HASH_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that was refused by policy, before the refusal is written.

    Attributes:
        message_id: its id.
        recipient: the refused recipient.
        code: the enhanced status code.
        reason: for the operator.

    """

    message_id: int
    recipient: Recipient
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class RefusalEffect:
    """What a message's refusals by policy mean for this attempt.

    Attributes:
        first_at: when it was first refused by policy, in seconds since the epoch; None for never before.
        spends: whether this refusal spends an attempt.

    """

    first_at: float | None
    spends: bool


@dataclass(frozen=True, slots=True)
class Noted:
    """The result of noting refusals.

    Attributes:
        declared: the refusal that declares an outage, if one does.
        given_back: the messages whose attempts were given back.

    """

    declared: RefusedMessage | None
    given_back: frozenset[int]


def recipient_of(address: str, key: str) -> Recipient:
    """Return the recipient as keyed hashes."""
    folded = address.lower()
    domain = folded.rpartition("@")[2]
    return Recipient(_hash(folded, key), _hash(domain, key), domain)


def read_effects(connection: DbConnection, message_ids: Sequence[int]) -> dict[int, RefusalEffect]:
    """Return what a refusal will mean for each of these messages, which are still running.

    Nothing is locked. If an outage starts or ends before the refusals are written, a message either spends an attempt
    that `note` gives back at once, or is released once more.
    """
    status = policy_refusals.read_policy_status(connection)
    failures = policy_refusals.read_failures(connection, message_ids)
    return {each: _effect(status, refusal_times(failures.get(each))) for each in message_ids}


def note(
    connection: DbConnection, refused: Sequence[RefusedMessage], effects: Mapping[int, RefusalEffect], scale: float
) -> Noted:
    """Note refusals that this transaction has written, and declare an outage if they are enough for one.

    During an outage, attempts are given back, and a refused probe lengthens the pause before the next probe.
    """
    policy_refusals.lock_breaker(connection)
    status = policy_refusals.read_policy_status(connection)
    noted = {each.message_id: each for each in kept_refusals(status.refusals) if each.at > status.accepted_at}
    rows = policy_refusals.read_row_states(connection, [each.message_id for each in refused])
    for each in refused:
        row, effect = rows.get(each.message_id), effects[each.message_id]
        if row is not None:
            noted |= _noted_again(each, row, effect, noted.get(each.message_id), status)
    declared = None if status.is_outage else _enough(connection, refused, noted)
    given_back: set[int] = set()
    if status.is_outage or declared is not None:
        for each in refused if declared is None else [declared]:
            breaker.open_breaker(connection, MAIL, each.message_id, outage_reason(each), scale)
        given_back = policy_refusals.return_attempts(connection, [*noted.values()])
        noted = {id_: each for id_, each in noted.items() if id_ not in given_back}
    code = None if declared is None else declared.code
    newest = sorted(noted.values(), key=lambda each: each.at)[-_REFUSALS_KEPT:]
    policy_refusals.note_refusals(connection, newest, code)
    return Noted(declared, frozenset(given_back))


def log_outage(declared: RefusedMessage) -> None:
    """Log an outage by policy as an error."""
    _log.error(
        "destination.unavailable",
        destination=MAIL,
        error=outage_reason(declared),
        code=declared.code,
        meaning="the mail server refuses us, not the recipients: messages wait and spend no attempts",
        fix="ask the operator of the mail server about this code",
    )


def outage_reason(refused: RefusedMessage) -> str:
    """Return the reason for the breaker's row."""
    return f"the mail server refuses every recipient by policy ({refused.code}): {refused.reason}"


def _effect(status: PolicyStatus, times: Sequence[float]) -> RefusalEffect:
    was_refused_before = bool(times) and times[-1] < status.accepted_at
    return RefusalEffect(times[0] if times else None, spends=not status.is_outage or was_refused_before)


def _noted_again(
    refused: RefusedMessage, row: RowState, effect: RefusalEffect, before: Refusal | None, status: PolicyStatus
) -> dict[int, Refusal]:
    """Return the message's note after this refusal, or nothing if it gets none."""
    follows = before is not None and row.generation == _generation_after(before.generation, row.status)
    if not effect.spends:
        # It was running while attempts were given back, so it still waits for its own.
        return {before.message_id: _moved(before, row)} if before is not None and follows else {}
    if effect.first_at is not None and effect.first_at < status.accepted_at:
        return {}
    spent = before.spent + 1 if before is not None and follows else 1
    hashes = refused.recipient.address_hash, refused.recipient.domain_hash
    new = Refusal(refused.message_id, row.generation, row.attempt, spent, *hashes, refused.code, status.now)
    return {refused.message_id: new}


def _generation_after(generation: int, state: str) -> int:
    """Return the generation after a failed attempt: a dead letter keeps it."""
    return generation if state == "dead" else (generation + 1) % (LARGEST_NUMBER + 1)


def _moved(refusal: Refusal, row: RowState) -> Refusal:
    return replace(refusal, generation=row.generation, attempt=row.attempt)


def _enough(
    connection: DbConnection, refused: Sequence[RefusedMessage], noted: Mapping[int, Refusal]
) -> RefusedMessage | None:
    """Return a refused message if enough recipients were refused with its code to declare an outage."""
    for each in refused:
        alike = [refusal for refusal in noted.values() if refusal.code == each.code]
        if each.message_id not in noted or len({refusal.recipient for refusal in alike}) < ENOUGH_RECIPIENTS:
            continue
        is_of_several_domains = len({refusal.domain for refusal in alike}) > 1
        if is_of_several_domains or not policy_refusals.another_domain_waits(connection, each.recipient.domain):
            return each
    return None


def kept_refusals(stored: Any) -> list[Refusal]:  # noqa: ANN401 - JSON
    """Return the refusals stored on the breaker's row. Anything else there is skipped."""
    refusals = []
    for each in stored if isinstance(stored, list) else []:
        try:
            refusals.append(Refusal(**each))
        except TypeError:
            continue
    return refusals


def refusal_times(failures: Any) -> list[float]:  # noqa: ANN401 - JSON
    """Return the times of a message's refusals by policy that are kept: the first, and each that spent an attempt."""
    times = []
    for each in failures if isinstance(failures, list) else []:
        if isinstance(each, dict) and "policy_code" in each:
            try:
                times.append(datetime.fromisoformat(each["at"]).timestamp())
            except (KeyError, TypeError, ValueError, OverflowError):
                continue
    return sorted(times)


def _hash(text: str, key: str) -> str:
    digest = hmac.digest(key.encode(), f"refused recipient: {text}".encode(errors="replace"), hashlib.sha256)
    return digest.hex()[:_HASH_CHARACTERS]
