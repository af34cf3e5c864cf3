"""Appending messages to the outbox, in the caller's transaction.

A message whose transaction commits is delivered. One whose transaction rolls back never existed. Redis is not used.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Text,
    bindparam,
    func,
    insert,
    literal_column,
    null,
    select,
)
from sqlalchemy.orm import Session

from shared.outbox.messages import Message
from shared.outbox.tables import outbox, outbox_finished
from shared.tracing.spans import current_traceparent

_NAME: Final = re.compile(r"[A-Za-z0-9_:.-]+")


def append(connection: Connection | Session, message: Message, *, delay_seconds: float = 0) -> int:
    """Append a message in the caller's transaction and return its id.

    Args:
        connection: the connection or session with the open transaction.
        message: the message.
        delay_seconds: the message is not run before so many seconds have passed.

    """
    values: dict[str, Any] = {"task": message.task, "queue": message.queue, "payload": message.payload()}
    if message.destination is not None:
        values["destination"] = message.destination
    if delay_seconds:
        values["due_at"] = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay_seconds)
    if traceparent := current_traceparent():
        values["traceparent"] = traceparent
    return int(connection.execute(insert(outbox).values(values).returning(outbox.c.id)).scalar_one())


def append_for_each(
    source: FromClause,
    message: type[Message],
    payload: Mapping[str, ColumnElement[Any]],
    *,
    due_at: ColumnElement[Any] | None = None,
) -> Insert:
    """Return the INSERT that appends one message for each row of `source`.

    As a CTE of the statement that writes those rows, it makes the write and its message one statement: one round trip,
    and no moment between the two at which a process could die.

    Args:
        source: usually the CTE of an INSERT or UPDATE with RETURNING.
        message: the class of the message.
        payload: the message's fields, each as a column of `source`.
        due_at: when the messages are due; by default now.

    """
    row = select(
        _constant(message.task),
        _constant(message.queue),
        _object(payload),
        func.now() if due_at is None else due_at,
        # Evaluated at each execution: the statement is built once.
        bindparam("traceparent", callable_=current_traceparent, type_=Text()),
        _destination(message),
    ).select_from(source)
    return insert(outbox).from_select(["task", "queue", "payload", "due_at", "traceparent", "destination"], row)


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
