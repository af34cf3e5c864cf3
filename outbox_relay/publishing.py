"""Publishing: from pending rows to jobs on Redis, one bounded batch at a time."""

import structlog

from outbox_relay import statements
from outbox_relay.broker import Broker
from outbox_relay.statements import DbConnection
from shared.database import transaction

_log = structlog.get_logger(__name__)


class Publisher:
    """Publishes batches; holds no state between them."""

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

    def publish_batch(self, connection: DbConnection, size: int, due_before: float | None = None) -> int:
        """Publish up to `size` due messages and return how many.

        The row locks are held across the push, so that no other relay pushes the same rows; the socket's timeouts
        and PostgreSQL's limit on idle transactions bound that time.

        Raises:
            BrokerUnavailableError: the batch was rolled back; its rows are pending as before.

        """
        with transaction(connection):
            rows = statements.take_batch(connection, size, due_before)
            if rows:
                ids = [row.id for row in rows]
                epoch = self._broker.push(rows)
                _log.info("pushed", message_ids=ids)
                statements.mark_published(connection, ids, epoch, self._publish_lease_seconds)
                return len(rows)
            return self._publish_probe(connection)

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
