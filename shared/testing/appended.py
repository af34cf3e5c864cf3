"""Which messages the present transaction has appended."""

import json
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from shared.outbox.messages import Message

AnyConnection = Connection | Session | psycopg.Connection[Any]

# A row that we see, and whose transaction is in progress, is ours: written by this transaction or by a savepoint of it.
# xmin has the last 32 bits of that transaction's number. No parameters: each driver has another way to write them.
_APPENDED: Final = """
    WITH present AS (
        SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) + 2147483648 AS latest
    )
    SELECT id, task, queue, destination, CAST(payload AS text), dedup_key,
           CAST(extract(epoch FROM due_at - now()) AS float8)
      FROM outbox CROSS JOIN present
     WHERE status = 'pending'
       AND pg_xact_status(CAST(CAST(
               latest - ((latest - CAST(CAST(outbox.xmin AS text) AS bigint)) & 4294967295) AS text) AS xid8)
           ) = 'in progress'
     ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class AppendedMessage:
    """A message that the present transaction has appended, or has become part of by its dedup key.

    Attributes:
        id: its id.
        task: the name of its task.
        queue: its queue.
        destination: its destination; None for the task's own.
        payload: the JSON object that the task will get.
        dedup_key: its dedup key, if it has one.
        delay_seconds: when it is due, counted from the start of the transaction.

    """

    id: int
    task: str
    queue: str
    destination: str | None
    payload: dict[str, Any]
    dedup_key: str | None
    delay_seconds: float


def appended(connection: AnyConnection, message: type[Message] | None = None) -> list[AppendedMessage]:
    """Return the messages that were appended in the connection's present transaction, by id.

    Args:
        connection: a connection or session of SQLAlchemy, or a connection of psycopg, whose role may read the outbox.
        message: the class of the messages; by default all.

    """
    if isinstance(connection, psycopg.Connection):
        rows = connection.cursor(row_factory=psycopg.rows.tuple_row).execute(_APPENDED.encode()).fetchall()
    else:
        rows = [tuple(row) for row in connection.execute(text(_APPENDED))]
    found = [
        AppendedMessage(id_, task, queue, destination, json.loads(payload), dedup_key, delay)
        for id_, task, queue, destination, payload, dedup_key, delay in rows
    ]
    return [each for each in found if message is None or each.task == message.task]


def assert_appended(connection: AnyConnection, message: Message) -> AppendedMessage:
    """Return the message, which was appended exactly once in the connection's present transaction.

    Args:
        connection: as for `appended`.
        message: its class and its fields.

    Raises:
        AssertionError: it was not appended, or more than once. The text says what was appended.

    """
    found = appended(connection)
    payload = json.loads(json.dumps(message.payload()))
    equal = [each for each in found if (each.task, each.payload) == (message.task, payload)]
    if len(equal) != 1:
        times = "appended more than once" if equal else "not appended"
        raise AssertionError(f"{message!r} was {times} in this transaction.\n{_described(found)}")
    return equal[0]


def _described(found: list[AppendedMessage]) -> str:
    if not found:
        return "It has appended nothing. In autocommit mode, and after a commit, no transaction is open."
    return "\n".join(["It has appended:", *(f"  {each.task} {json.dumps(each.payload)}" for each in found)])
