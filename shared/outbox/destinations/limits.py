"""The statements of limits: which of several claimed messages may be sent now, by their destination's limit.

A token is the permission for one send; max_per_second of them are added in a second. A place is one of the
max_in_flight messages that all workers together may have in hand. Nobody gives a place back: it is free once its
message's row is not running any more with the claim that took it, even if the worker was killed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim
from shared.outbox.destinations.control import BURST


@dataclass(frozen=True, slots=True)
class Admission:
    """Which messages may begin.

    Attributes:
        message_ids: the messages that may begin now.
        seconds_to_next: how long it takes until another one may, if a number of them for each second is the reason.

    """

    message_ids: frozenset[int]
    seconds_to_next: float = 0.0


_PLACE: Final = "CASE WHEN place.key ~ '^[0-9]{1,18}$' THEN place.key::bigint END"
"""The id of the message that has a place. Another program may have written anything."""


def admit(connection: DbConnection, name: str, claims: Sequence[Claim]) -> Admission | None:
    """Take a place and a token for each of these messages of a destination, as far as there are any.

    Returns None if another session has locked the destination's row.

    Args:
        connection: in a transaction of its own, to be committed before a message begins.
        name: the destination.
        claims: messages that can begin within TOKEN_SECONDS.

    """
    row = connection.execute(
        "SELECT max_per_second, max_in_flight FROM outbox_destinations WHERE name = %s FOR UPDATE SKIP LOCKED", [name]
    ).fetchone()
    if row is None:
        exists = connection.execute("SELECT FROM outbox_destinations WHERE name = %s", [name]).fetchone()
        return None if exists is not None else Admission(frozenset(claim.id for claim in claims))
    max_per_second, max_in_flight = row
    placed = list(claims) if max_in_flight is None else _take_places(connection, name, claims, max_in_flight)
    if max_per_second is None or not placed:
        return Admission(frozenset(claim.id for claim in placed))
    tokens, seconds = _take_tokens(connection, name, len(placed))
    if max_in_flight is not None and tokens < len(placed):
        _return_places(connection, name, placed[tokens:])
    return Admission(frozenset(claim.id for claim in placed[:tokens]), seconds)


def _take_places(connection: DbConnection, name: str, claims: Sequence[Claim], most: int) -> list[Claim]:
    """Return the messages that have a place now. One that took it in a transaction whose COMMIT seemed lost has it."""
    row = connection.execute(
        f"""
        WITH kept AS MATERIALIZED (
            SELECT place.key AS id, place.value AS token
              FROM outbox_destinations AS d
             CROSS JOIN jsonb_each_text(d.in_flight) AS place
              JOIN outbox AS message
                ON message.id = {_PLACE} AND message.status = 'running' AND message.claim_token::text = place.value
             WHERE d.name = %(name)s
        ), added AS MATERIALIZED (
            SELECT claim.id::text, claim.token::text
              FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) WITH ORDINALITY AS claim (id, token, number)
             WHERE NOT EXISTS (SELECT FROM kept WHERE kept.id = claim.id::text)
             ORDER BY number
             LIMIT greatest(0, %(most)s - (SELECT count(*) FROM kept))
        )
        UPDATE outbox_destinations
           SET in_flight = coalesce(
                   (SELECT jsonb_object_agg(id, token) FROM (TABLE kept UNION ALL TABLE added) AS taken), '{{}}')
         WHERE name = %(name)s
        RETURNING in_flight
        """,  # noqa: S608 - an expression of our own
        {
            "name": name,
            "ids": [claim.id for claim in claims],
            "tokens": [claim.token for claim in claims],
            "most": most,
        },
    ).fetchone()
    taken = {} if row is None else row[0]
    return [claim for claim in claims if taken.get(str(claim.id)) == str(claim.token)]


def _return_places(connection: DbConnection, name: str, claims: Sequence[Claim]) -> None:
    connection.execute(
        "UPDATE outbox_destinations SET in_flight = in_flight - %s::text[] WHERE name = %s",
        [[str(claim.id) for claim in claims], name],
    )


def _take_tokens(connection: DbConnection, name: str, wanted: int) -> tuple[int, float]:
    """Return how many tokens were taken, and after how many seconds there is another one.

    The clock is read while the row is locked, and once: no time is counted twice. A clock that was set back adds
    nothing.
    """
    row = connection.execute(
        f"""
        UPDATE outbox_destinations AS d
           SET tokens = present.tokens - least(%(wanted)s, floor(present.tokens)), refilled_at = present.at
          FROM (
              SELECT name, clock.at, max_per_second AS rate,
                     least({BURST}, coalesce(tokens, {BURST})
                         + max_per_second
                           * coalesce(greatest(0, extract(epoch FROM clock.at - refilled_at)::float8), 0)) AS tokens
                FROM outbox_destinations, (SELECT clock_timestamp() AS at) AS clock
               WHERE name = %(name)s
          ) AS present
         WHERE d.name = present.name
        RETURNING least(%(wanted)s, floor(present.tokens))::integer, greatest(0, (1 - d.tokens) / present.rate)
        """,  # noqa: S608 - an expression of our own
        {"name": name, "wanted": wanted},
    ).fetchone()
    return (0, 0.0) if row is None else (row[0], row[1])
