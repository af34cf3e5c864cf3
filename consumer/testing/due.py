"""Runs every message that is due, one after the other, with the stages of the real consumer."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Unpack

import psycopg

from consumer.stages.processor import Processor
from consumer.stages.send import Clients
from consumer.testing.capturing import CapturedMail, CapturedWebhook, CapturingMailer, CapturingWebhookClient, SendMail
from consumer.testing.site import Site, settings_of, tasks_of
from shared.database.connections import DbConnection, connect
from shared.settings.postgresql_url import parse_postgresql_url


@dataclass(frozen=True, slots=True)
class ProcessedMessage:
    """A message that was run.

    Attributes:
        id: its id.
        task: the name of its task.
        payload: its payload.
        status: what became of it: `done`, `discarded`, `dead`, or `pending` if it is to be tried again.
        reason: why it is not done.

    """

    id: int
    task: str
    payload: dict[str, Any]
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class DueRun:
    """What run_due has done.

    Attributes:
        messages: the messages that were run, in order.
        mails: the mails that were sent, in order.
        webhooks: the webhooks that were sent, in order.

    """

    messages: Sequence[ProcessedMessage]
    mails: Sequence[CapturedMail]
    webhooks: Sequence[CapturedWebhook] = ()


def run_due(
    database_url: str,
    tasks: str | Sequence[str] | None = None,
    *,
    send: SendMail | None = None,
    **site: Unpack[Site],
) -> DueRun:
    """Run each message that is due, and those that they append, once. Return what became of them.

    Claims, transactions, acknowledgements and failures are those of a worker. There is no relay, no Redis and no mail
    server, and no webhook is sent.

    Args:
        database_url: a database with the schema, in which the messages are committed.
        tasks: the modules that list the tasks, as in OUTBOX_TASKS; by default `consumer.tasks`.
        send: is called for each mail. It may raise `Unavailable`, `RetryAfter` or `Undeliverable`, or another
            exception for an attempt that fails. By default each mail is accepted.
        **site: as in Site.

    Raises:
        SettingsError: a module of tasks cannot be used.
        psycopg.Error: PostgreSQL cannot be used.

    """
    registry = tasks_of(tasks)
    url = parse_postgresql_url(database_url)
    clients = Clients(mailer := CapturingMailer(send), webhooks := CapturingWebhookClient())
    messages: list[ProcessedMessage] = []
    with (
        connect(url, "outbox-test") as connection,
        closing(Processor(settings_of(site, url), registry, clients=clients)) as processor,
    ):
        run: set[int] = set()
        while due := _due(connection, run):
            for id_ in due:
                processor.process(id_)
                messages.append(_processed(connection, id_))
            run.update(due)
    return DueRun(messages, mailer.mails, webhooks.webhooks)


def _due(connection: DbConnection, run: set[int]) -> list[int]:
    """Return the messages that are due and were not run yet, in the order of the relay."""
    rows = connection.execute(
        """
        SELECT id FROM outbox
         WHERE status IN ('pending', 'published') AND due_at <= now() AND id <> ALL (%s::bigint[])
         ORDER BY queue, due_at, id
        """,
        [list(run)],
    ).fetchall()
    return [row[0] for row in rows]


def _processed(connection: DbConnection, id_: int) -> ProcessedMessage:
    row = connection.execute(
        "SELECT id, task, payload, status, last_error FROM outbox_messages WHERE id = %s", [id_]
    ).fetchone()
    if row is None:
        raise psycopg.DataError(f"message {id_} was deleted while it was run")
    return ProcessedMessage(*row)
