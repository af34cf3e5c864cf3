"""Appending messages to the outbox, in the caller's transaction.

A message whose transaction commits is delivered. One whose transaction rolls back never existed. Redis is not used.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    bindparam,
    collate,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from shared.outbox.messages import Message
from shared.outbox.tables import outbox, outbox_finished
from shared.tracing.spans import current_traceparent

_NAME: Final = re.compile(r"[A-Za-z0-9_:.-]+")
_LONGEST_KEY: Final = 200


def append(
    connection: Connection | Session, message: Message, *, delay_seconds: float = 0, dedup_key: str | None = None
) -> int:
    """Append a message in the caller's transaction and return its id.

    With a dedup key, if a message of the same task and key waits for its first claim, that message gets the new payload
    and the earlier of the two due times, and its id is returned. Its claim waits for this transaction's end. So does
    another append with the key: a transaction that appends several keys does it in the order of (task, key).

    Args:
        connection: the connection or session with the open transaction.
        message: the message.
        delay_seconds: the message is not run before so many seconds have passed.
        dedup_key: 1 to 200 bytes of UTF-8, without secrets.

    Raises:
        ValueError: the dedup key is empty or too long.

    """
    if dedup_key is not None and not 1 <= len(dedup_key.encode()) <= _LONGEST_KEY:
        raise ValueError(f"a dedup key has 1 to {_LONGEST_KEY} bytes, not {len(dedup_key.encode())}")
    values: dict[str, Any] = {"task": message.task, "queue": message.queue, "payload": message.payload()}
    if message.destination is not None:
        values["destination"] = message.destination
    if delay_seconds:
        values["due_at"] = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay_seconds)
    if traceparent := current_traceparent():
        values["traceparent"] = traceparent
    statement = insert(outbox).values(values)
    if dedup_key is not None:
        statement = _join_waiting(statement.values(dedup_key=dedup_key))
    return int(connection.execute(statement.returning(outbox.c.id)).scalar_one())


def append_for_each(
    source: FromClause,
    message: type[Message],
    payload: Mapping[str, ColumnElement[Any]],
    *,
    due_at: ColumnElement[Any] | None = None,
    dedup_key: ColumnElement[Any] | None = None,
    destination: ColumnElement[Any] | None = None,
) -> Insert:
    """Return the INSERT that appends one message for each row of `source`.

    As a CTE of the statement that writes those rows, it makes the write and its message one statement: one round trip,
    and no moment between the two at which a process could die.

    A dedup key does what it does in `append`. Of several rows with the same key, one becomes a message.

    Args:
        source: usually the CTE of an INSERT or UPDATE with RETURNING.
        message: the class of the message.
        payload: the message's fields, each as a column of `source`.
        due_at: when the messages are due; by default now.
        dedup_key: the messages' keys; NULL for a message without one.
        destination: the messages' destinations, for a class that names none.

    """
    values: dict[str, ColumnElement[Any]] = {
        "task": _constant(message.task),
        "queue": _constant(message.queue),
        "payload": _object(payload),
        "due_at": func.now() if due_at is None else due_at,
        # Evaluated at each execution: the statement is built once.
        "traceparent": bindparam("traceparent", callable_=current_traceparent, type_=Text()),
        "destination": _destination(message) if destination is None else destination,
    }
    if dedup_key is None:
        return insert(outbox).from_select(list(values), select(*values.values()).select_from(source))
    values["dedup_key"] = dedup_key
    labelled = [column.label(name) for name, column in values.items()]
    return _join_waiting(insert(outbox).from_select(list(values), _one_for_each_key(source, labelled, dedup_key)))


def _one_for_each_key(
    source: FromClause, columns: Sequence[ColumnElement[Any]], dedup_key: ColumnElement[Any]
) -> Select[Any]:
    """Return the rows to insert: one INSERT cannot update a row twice, nor one that it has inserted itself.

    In the order of their keys: otherwise two appends could wait for each other.
    """
    number = func.row_number().over(partition_by=dedup_key).label("number")
    rows = select(*columns, number).select_from(source).subquery("numbered")
    key = rows.c.dedup_key
    chosen = select(*(rows.c[column.name] for column in columns)).where(or_(rows.c.number == text("1"), key.is_(None)))
    return chosen.order_by(collate(key, "C"))


def _join_waiting(statement: Insert) -> Insert:
    """Return the INSERT that becomes part of the message of the same task and key that waits for its first claim.

    It locks that message's row, so that a claim either comes first, and this is a message of its own, or waits for the
    end of this transaction and reads what it wrote.
    """
    return statement.on_conflict_do_update(
        index_elements=[outbox.c.task, outbox.c.dedup_key],
        index_where=and_(outbox.c.dedup_key.is_not(None), outbox.c.claimed_at.is_(None)),
        set_={
            "payload": statement.excluded.payload,
            "due_at": func.least(outbox.c.due_at, statement.excluded.due_at),
        },
    )


def append_discarded_for_each(
    source: FromClause,
    message: type[Message],
    payload: Mapping[str, ColumnElement[Any]],
    *,
    reason: ColumnElement[str],
) -> Insert:
    """Return the INSERT of messages that are discarded from the start: history, with the reason.

    Args:
        source: usually the CTE of an INSERT or UPDATE with RETURNING.
        message: the class of the message.
        payload: the message's fields, each as a column of `source`.
        reason: the value of `last_error`.

    """
    values: dict[str, ColumnElement[Any]] = {
        "id": func.nextval(literal_column("'outbox_id_seq'::regclass")),
        "task": _constant(message.task),
        "queue": _constant(message.queue),
        "payload": _object(payload),
        "status": _constant("discarded"),
        "last_error": reason,
        **dict.fromkeys(("due_at", "created_at", "finished_at"), func.now()),
        **dict.fromkeys(("generation", "attempt"), literal_column("0")),
        "failures": literal_column("'[]'::jsonb"),
        "uid": func.gen_random_uuid(),
        "destination": _destination(message),
    }
    return insert(outbox_finished).from_select(list(values), select(*values.values()).select_from(source))


def _object(payload: Mapping[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    return func.jsonb_build_object(*(part for name, column in payload.items() for part in (_constant(name), column)))


def _destination(message: type[Message]) -> ColumnElement[Any]:
    return null() if message.destination is None else _constant(message.destination)


def _constant(word: str) -> ColumnElement[str]:
    """Return one of our names as a literal; a parameter would be sent again at each execution."""
    if not _NAME.fullmatch(word):
        raise ValueError(f"not a name: {word!r}")
    return literal_column(f"'{word}'", Text())
