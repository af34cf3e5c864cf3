"""The tasks that a worker did not know: read from messages that wait for another worker, and from dead letters."""

from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.messages import QUEUES

_NAMES_READ: Final = 100
_MESSAGES_READ: Final = 100
"""Of each destination, those that are due first: a message of an unknown task is due within a minute."""


def read_unknown_tasks(connection: DbConnection) -> list[str]:
    """Return the tasks of messages that a worker has released because it does not know the task, or made dead letters.

    It reads a bounded number of rows, so in a large backlog it may miss some.
    """
    rows = connection.execute(
        """
        WITH RECURSIVE destination (queue, name, number) AS (
            SELECT queue, (SELECT min(coalesce(destination, '')) FROM outbox AS o
                            WHERE o.queue = queues.queue AND status = 'pending'), 1
              FROM unnest(%(queues)s::text[]) AS queues (queue)
            UNION ALL
            SELECT queue, (SELECT min(coalesce(destination, '')) FROM outbox AS o
                            WHERE o.queue = before.queue AND status = 'pending'
                              AND coalesce(o.destination, '') > before.name), number + 1
              FROM destination AS before
             WHERE name IS NOT NULL AND number < %(names)s
        ), waiting AS (
            SELECT first.task, first.last_error, first.failures
              FROM destination,
                   LATERAL (SELECT task, last_error, failures FROM outbox AS o
                             WHERE o.queue = destination.queue AND status = 'pending'
                               AND coalesce(o.destination, '') = destination.name
                             ORDER BY due_at, id LIMIT %(messages)s) AS first
             WHERE name IS NOT NULL
            UNION ALL
            (SELECT task, last_error, failures FROM outbox WHERE status = 'dead' ORDER BY id DESC LIMIT %(messages)s)
        )
        SELECT DISTINCT task
          FROM waiting
         WHERE failures #> '{0,counts}' ? 'unknown_since' AND last_error LIKE 'unknown task%%'
         ORDER BY task
        """,
        {"queues": list(QUEUES), "names": _NAMES_READ, "messages": _MESSAGES_READ},
    ).fetchall()
    return [row[0] for row in rows]
