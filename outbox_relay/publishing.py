"""Publishing: from pending rows to jobs on Redis, one bounded batch at a time."""

from time import monotonic
from typing import Final

import structlog

from outbox_relay import statements
from outbox_relay.broker import Broker
from outbox_relay.statements import DbConnection, Place, Row
from shared.database import transaction

_log = structlog.get_logger(__name__)

LOOK_BACK_SECONDS: Final = 1.0
"""How long a message may wait that was committed, in a backlog, before the place that the relay has reached."""


class Publisher:
    """Publishes batches.

    In a backlog it remembers where the last full batch ended. The index keeps the entries of published rows until a
    vacuum, and from the queue's beginning each batch would walk over all that the batches before it have published.
    """

    def __init__(self, broker: Broker, *, publish_lease_seconds: float, probe_patience_seconds: float) -> None:
        """Keep what every batch needs.

        Args:
            broker: where the jobs go.
            publish_lease_seconds: how long a published message may be silent before it is looked for.
            probe_patience_seconds: how long a probe of the mail server may be silent before another is sent.

        """
        self._broker = broker
        self._publish_lease_seconds = publish_lease_seconds
        self._probe_patience_seconds = probe_patience_seconds
        self._place: Place | None = None
        self._look_back_at = 0.0

    def publish_batch(self, connection: DbConnection, size: int, due_before: float | None = None) -> int:
        """Publish up to `size` due messages and return how many.

        The row locks are held across the push, so that no other relay pushes the same rows; the socket's timeouts
        and PostgreSQL's limit on idle transactions bound that time.

        Raises:
            BrokerUnavailableError: the batch was rolled back; its rows are pending as before.

        """
        # Set again after the commit of a full batch and nowhere else: what is rolled back must not lie before it.
        after, self._place = self._place, None
        with transaction(connection):
            rows = self._take(connection, size, due_before, after)
            if not rows:
                return self._publish_probe(connection)
            ids = [row.id for row in rows]
            epoch = self._broker.push(rows)
            _log.info("pushed", message_ids=ids)
            statements.mark_published(connection, ids, epoch, self._publish_lease_seconds)
            place = statements.place_of(connection, rows[-1]) if len(rows) == size else None
        self._place = place
        return len(rows)

    def _take(self, connection: DbConnection, size: int, due_before: float | None, after: Place | None) -> list[Row]:
        """Take what comes after the place, if there is one; from the beginning now and then, and at the end.

        A message may be committed, or come back, before the place: the order of due_at is not the order of commits.
        Only the queue of the batch's last row has a place, so that all of critical is seen beside default's backlog.
        """
        if after and monotonic() < self._look_back_at:
            rows = statements.take_batch(connection, size, due_before, after)
            if rows:
                return rows
        self._look_back_at = monotonic() + LOOK_BACK_SECONDS
        return statements.take_batch(connection, size, due_before)

    def _publish_probe(self, connection: DbConnection) -> int:
        """Publish the one message that may be tried while the mail server is unreachable.

        It goes before the jobs that were pushed while the server was well: behind a hundred thousand of them, which the
        consumers all put back, nobody would learn for half an hour that the server has returned.
        """
        probe = statements.take_probe(connection)
        for row in probe:
            epoch = self._broker.push([row], in_front=True)
            _log.info("pushed", message_ids=[row.id], meaning="it tries the mail server")
            statements.mark_published(connection, [row.id], epoch, self._publish_lease_seconds)
            statements.mark_probe(connection, row.id, self._probe_patience_seconds)
        return len(probe)
