"""Read a run's users, messages and the record of every change of a message from the database."""

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from tests.chaos.checking.evidence import Claim, End, Job, Message

SCHEMA: Final = Path(__file__).with_name("history.sql")


class Change(NamedTuple):
    """One committed change of a message."""

    message_id: int
    at: float
    by: str
    change: str
    status: str
    generation: int
    attempt: int
    claim_token: UUID | None
    reason: str | None
    maybe_accepted: bool


def read_changes(connection: psycopg.Connection[Any]) -> list[Change]:
    """Return all changes, those of one message one after the other."""
    rows = connection.execute(
        """
        SELECT message_id, extract(epoch FROM at)::float8, by, change, status, generation, attempt, claim_token, reason,
               maybe_accepted
          FROM chaos_history
         ORDER BY message_id, n
        """
    )
    return [Change(*row) for row in rows]


def read_users(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the address of each user by its name."""
    return dict(connection.execute("SELECT username, email FROM users").fetchall())


def read_messages(connection: psycopg.Connection[Any]) -> dict[int, Message]:
    """Return every message, live or finished, by its id."""
    rows = connection.execute("SELECT id, payload->>'username', status FROM outbox_messages")
    return {row[0]: Message(*row) for row in rows}


def read_uids(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the id of each message, live or finished, by its uid."""
    return {str(uid): id_ for uid, id_ in connection.execute("SELECT uid, id FROM outbox_messages").fetchall()}


def read_jobs(connection: psycopg.Connection[Any]) -> list[Job]:
    """Return the jobs of the run's own tasks."""
    rows = connection.execute("SELECT job, task, message_id FROM chaos_jobs ORDER BY job")
    return [Job(*row) for row in rows]


def read_effects(connection: psycopg.Connection[Any]) -> list[int]:
    """Return the jobs whose effects are there, a job once for each effect."""
    return [row[0] for row in connection.execute("SELECT job FROM chaos_effects ORDER BY job")]


def is_quiet(connection: psycopg.Connection[Any]) -> bool:
    """Return whether no message has anything ahead of it.

    A dead letter waits for an operator, and what is for the destination that is down waits for ever.
    """
    unfinished = "SELECT FROM outbox WHERE status <> 'dead' AND task <> 'chaos:down' LIMIT 1"
    return connection.execute(unfinished).fetchone() is None


def claims_of(changes: list[Change]) -> list[Claim]:
    """Find each claim's beginning and end in the record."""
    claims = []
    for _, of_message in groupby(changes, key=lambda change: change.message_id):
        # A claim is one change, whatever ends it is the next: nothing else touches a running message but a renewal.
        for begin, end in pairwise([*_without_renewals(of_message), None]):
            if begin is not None and begin.status == "running" and begin.change == "update":
                claims.append(_claim(begin, end))
    return claims


def _without_renewals(changes: Iterable[Change]) -> Iterator[Change]:
    """Return the changes but for those that keep a claim as it is, with a later end of its lease."""
    token = None
    for change in changes:
        is_renewal = change.change == "update" and change.status == "running" and change.claim_token == token
        if not is_renewal:
            yield change
        token = change.claim_token


def _claim(begin: Change, end: Change | None) -> Claim:
    if end is None:
        return Claim(begin.message_id, begin.by, begin.attempt, begin.at, float("inf"), "open")
    how = _end(begin, end)
    return Claim(
        message_id=begin.message_id,
        by=begin.by,
        attempt=begin.attempt,
        began=begin.at,
        ended=end.at,
        end=how,
        ended_by=end.by,
        reason=(end.reason or "") if how != "done" else "",
        maybe_accepted=how in {"spent", "dead"} and end.maybe_accepted,
    )


def _end(begin: Change, end: Change) -> End:
    if end.change == "delete":
        return "done"
    if end.status == "dead":
        return "dead"
    return "given back" if end.attempt < begin.attempt else "spent"
