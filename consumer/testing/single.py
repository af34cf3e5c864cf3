"""Runs one message through its task, without a database of the outbox and without servers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable, isgenerator
from time import monotonic
from typing import Any, Final, Self, Unpack
from uuid import uuid4

from psycopg.pq import TransactionStatus

from consumer.task import Context, Mail, Undeliverable, Webhook
from consumer.task.context import Append, HandledMessage
from consumer.task.results import Prepared
from consumer.testing.lending import AnyConnection, lent
from consumer.testing.site import Site, settings_of, tasks_of
from shared.database.connections import DbConnection
from shared.errors import OutboxError
from shared.outbox.claiming.follow_ups import FollowUp, append_follow_ups
from shared.outbox.messages import Message

_ID: Final = 1


@dataclass(frozen=True, slots=True)
class MessageRun:
    """What a task has made of a message.

    Attributes:
        returned: what `prepare` returned for the message, or what `handle` returned.
        appended: the messages that it appended with `context.append`, in order.

    """

    returned: Any
    appended: Sequence[Message]


def run_message(
    message: Message,
    tasks: str | Sequence[str] | None = None,
    *,
    connection: AnyConnection | None = None,
    connect: Callable[[], DbConnection] | None = None,
    attempt: int = 1,
    **site: Unpack[Site],
) -> MessageRun:
    """Call the task's function for one message, and return what it has returned.

    The payload goes through JSON and the task's schema, as in the outbox. What the function raises is raised.

    Args:
        message: the message.
        tasks: the modules that list the tasks, as in OUTBOX_TASKS; by default `consumer.tasks`.
        connection: `context.connection` of `prepare`: a connection or session of SQLAlchemy with psycopg's driver, or a
            connection of psycopg. It is left in its transaction, with what `prepare` has written.
        connect: `context.connect` of `handle`.
        attempt: the number of the attempt, for `handle`.
        **site: as in Site.

    Raises:
        LookupError: no module lists the message's task.
        ValueError: the outbox would refuse the message, or one that the task has appended.
        TypeError: the task returned something that fails the attempt.
        RuntimeError: the task ended the transaction, or left one open.
        SettingsError: a module of tasks cannot be used.

    """
    task = tasks_of(tasks).get(message.task)
    if task is None:
        raise LookupError(f"no module of `tasks` lists {message.task}")
    content = task.load(FollowUp.of(message).payload)
    collected: list[Message] = []
    settings = settings_of(site, "postgresql://localhost/no-database-in-this-test")
    if task.prepare is not None:
        with lent(connection) as borrowed:
            context = Context(settings, _appender(collected, borrowed), connection=borrowed)
            return MessageRun(_prepared(task.prepare(context, {_ID: content})), collected)
    if task.handle is None:
        raise OutboxError("a task without a function")
    with _Opened(connect) as opened:
        handled = HandledMessage(_ID, attempt, str(uuid4()), monotonic() + task.timeout_seconds)
        context = Context(settings, _appender(collected, None), message=handled, connect=opened.connect)
        return MessageRun(_handled(task.handle(context, content)), collected)


def _appender(collected: list[Message], connection: DbConnection | None) -> Append:
    """Return context.append. With a connection the message is written, too."""

    def append(message: Message, delay_seconds: float) -> None:
        row = FollowUp.of(message, delay_seconds)
        if connection is not None:
            append_follow_ups(connection, [row])
        collected.append(message)

    return append


def _prepared(returned: object) -> object:
    """Return what was returned for the message. Raise TypeError where the worker would fail the attempt."""
    if not isinstance(returned, Mapping):
        raise TypeError(f"prepare returned {returned!r} in place of a mapping from message ids")
    if _ID not in returned:
        raise TypeError("prepare returned nothing for this message")
    for_message: object = returned[_ID]
    if not isinstance(for_message, Prepared):
        raise TypeError(
            f"prepare returned {for_message!r} for this message: it has to be Mail, Webhook, Done() or Undeliverable"
        )
    return for_message


def _handled(returned: object) -> object:
    """Return what the handler has returned. Raise TypeError where the worker would fail the attempt."""
    if isinstance(returned, Mail | Webhook | BaseException) and not isinstance(returned, Undeliverable):
        raise TypeError(f"the handler returned {type(returned).__name__}, which only `prepare` may return")
    if isawaitable(returned) or isgenerator(returned):
        raise TypeError("the handler returned a coroutine or a generator, which nobody runs: write a plain function")
    return returned


class _Opened:
    """The connections that a handler opens."""

    def __init__(self, connect: Callable[[], DbConnection] | None) -> None:
        self._connect = connect
        self._opened: list[DbConnection] = []

    def __enter__(self) -> Self:
        return self

    def connect(self) -> DbConnection:
        if self._connect is None:
            raise RuntimeError("the handler uses context.connect(): pass connect= to run_message")
        self._opened.append(self._connect())
        return self._opened[-1]

    def __exit__(self, kind: type[BaseException] | None, *_more: object) -> None:
        has_leaked = any(
            each.info.transaction_status != TransactionStatus.IDLE for each in self._opened if not each.closed
        )
        for each in self._opened:
            each.close()
        if has_leaked and kind is None:
            raise RuntimeError("the handler left a transaction open: commit it, or use `with context.connect() as …`")
