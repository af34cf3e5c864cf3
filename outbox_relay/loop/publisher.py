"""Publish: turn pending rows into jobs in Redis, one bounded batch at a time."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker import Broker
from outbox_relay.loop.pacing import POLLING_SHARE, interval
from shared.database.connections import DbConnection, transaction
from shared.logs import lines_of
from shared.outbox import publishing
from shared.outbox.messages import CRITICAL, DEFAULT, QUEUES, JobRef
from shared.outbox.publishing import CURSOR_AT_END, CURSORS_AT_START, Batch, Cursor

_log = structlog.get_logger(__name__)

RESCAN_SECONDS: Final = 1.0
"""The time between two scans from the start of the queues, which find messages that were committed late or released.
Longer where such a scan takes long."""

BLOCKED_SECONDS: Final = 1.0
"""How long no message is taken for a queue whose key in Redis holds no list."""

LATE_SECONDS: Final = 10.0
"""Messages are committed in another order than due_at; the difference is the length of a transaction."""


class Publisher:
    """Publishes batches.

    It remembers its position in each queue. The index keeps the entries of published rows until a vacuum, and a vacuum
    keeps them while any session holds an old snapshot: from the start of the queue, each scan would read all of them.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        publish_lease_seconds: float,
        probe_timeout_seconds: float,
        rescan_seconds: float = RESCAN_SECONDS,
    ) -> None:
        """Keep what every batch needs.

        Args:
            broker: where the jobs are pushed.
            publish_lease_seconds: the lease of a published message, after which its job is looked up in Redis.
            probe_timeout_seconds: how long to wait for the result of a probe of the mail server.
            rescan_seconds: the time between two scans from the start of the queues.

        """
        self._broker = broker
        self._publish_lease_seconds = publish_lease_seconds
        self._rescan_seconds = rescan_seconds
        self._probe_timeout_seconds = probe_timeout_seconds
        self._cursors = CURSORS_AT_START
        self._rescan_at = 0.0
        self._blocked_until: dict[str, float] = {}
        """Queues whose key in Redis holds no list, and the time (monotonic) of the next try."""
        self._named_as_blocked: set[str] = set()
        self.rescanned = True
        """Whether the last batch was taken from the start of the queues."""
        self.has_more = False
        """Whether more messages may be due than the last batch held."""

    def publish_batch(self, connection: DbConnection, size: int, due_before: float | None = None) -> int:
        """Publish up to `size` due messages and return how many.

        The row locks are held during the push, so that no other relay pushes the same rows. The socket's timeouts and
        PostgreSQL's limit on idle transactions bound that time.

        Raises:
            BrokerUnavailableError: the batch was rolled back; its rows are pending as before.

        """
        self._unblock()
        while True:
            blocked_before = len(self._blocked_until)
            published = self._publish_next(connection, size, due_before)
            if published or len(self._blocked_until) == blocked_before:
                return published
            # All messages of this batch belong to a blocked queue: the next batch is the other queue's.

    def _publish_next(self, connection: DbConnection, size: int, due_before: float | None) -> int:
        with transaction(connection):
            batch = self._take(connection, size, due_before)
            published = self._publish(connection, batch.jobs) if batch.jobs else self._publish_probe(connection)
            emptied = _emptied(batch, size)
            cursors = self._cursors_behind(connection, batch, emptied)
        self._cursors = cursors
        self.has_more = len(emptied) < len(QUEUES)
        return published

    def _publish(self, connection: DbConnection, rows: Sequence[JobRef]) -> int:
        epoch = self._broker.push(rows)
        pushed = self._without_refused(rows)
        for ids in lines_of([row.id for row in pushed]):
            _log.info("messages.published", message_ids=ids)
        publishing.mark_published(connection, [row.id for row in pushed], epoch, self._publish_lease_seconds)
        return len(pushed)

    def _without_refused(self, rows: Sequence[JobRef]) -> Sequence[JobRef]:
        """Return the rows whose jobs were pushed, and block the queues of the others for BLOCKED_SECONDS."""
        refused = self._broker.refused_queues
        for queue in refused:
            if queue not in self._named_as_blocked:
                _log.error(
                    "queue.blocked",
                    key=self._broker.queue_key(queue),
                    meaning="the key holds no list: the queue's messages stay pending",
                    fix="rename the key, or delete it if nobody needs what it holds",
                )
            self._named_as_blocked.add(queue)
            self._blocked_until[queue] = monotonic() + BLOCKED_SECONDS
        for queue in {row.queue for row in rows} - refused:
            if queue in self._named_as_blocked:
                self._named_as_blocked.remove(queue)
                _log.info("queue.unblocked", key=self._broker.queue_key(queue))
        return [row for row in rows if row.queue not in refused]

    def _unblock(self) -> None:
        """Unblock the queues whose time is over, and scan them from the start."""
        for queue in [queue for queue, until in self._blocked_until.items() if monotonic() >= until]:
            del self._blocked_until[queue]
            self.rescan()

    @property
    def blocked_queues(self) -> list[str]:
        """The keys in Redis that hold no list, so that their queues' messages stay pending."""
        return [self._broker.queue_key(queue) for queue in sorted(self._named_as_blocked)]

    def rescan(self) -> None:
        """Take the next batch from the start of the queues."""
        self._rescan_at = 0.0

    def next_due(self, connection: DbConnection) -> float | None:
        """Return the seconds until the next batch is due (0 or less: now), or None when nothing is pending."""
        if self.rescanned:
            # This query reads as many index entries as the scan.
            began = monotonic()
            due = publishing.next_due(connection, self._unblocked(CURSORS_AT_START))
            self._rescan_at += interval(began, POLLING_SHARE)
            return due
        due = publishing.next_due(connection, self._unblocked(self._cursors))
        until_rescan = self._rescan_at - monotonic()
        return until_rescan if due is None else min(due, until_rescan)

    def _take(self, connection: DbConnection, size: int, due_before: float | None) -> Batch:
        """Take a batch behind the cursors, and from the start of the queues every rescan_seconds."""
        began = monotonic()
        self.rescanned = began >= self._rescan_at
        if not self.rescanned:
            return publishing.take_batch(connection, size, due_before, self._unblocked(self._cursors))
        batch = publishing.take_batch(connection, size, due_before, self._unblocked(CURSORS_AT_START))
        self._rescan_at = began + max(self._rescan_seconds, interval(began, POLLING_SHARE))
        return batch

    def _unblocked(self, cursors: Mapping[str, Cursor]) -> Mapping[str, Cursor]:
        """Return the cursors, with those of blocked queues at the end."""
        return {**cursors, **dict.fromkeys(self._blocked_until, CURSOR_AT_END)} if self._blocked_until else cursors

    def _cursors_behind(
        self, connection: DbConnection, batch: Batch, emptied: AbstractSet[str]
    ) -> Mapping[str, Cursor]:
        """Return the cursors behind a batch.

        In a queue that has more due messages, the cursor is the last row of the batch: others may be due at the same
        time, because one statement gives all its messages the same due time. In a queue whose due messages are all
        taken, the cursor is LATE_SECONDS ago.
        """
        cursors = dict(batch.cursors)
        if emptied and (recent := publishing.cursor_before_now(connection, LATE_SECONDS)):
            cursors |= dict.fromkeys(emptied, recent)
        return {**self._cursors, **cursors}

    def _publish_probe(self, connection: DbConnection) -> int:
        """Publish the one message that probes an unreachable mail server.

        Its job is pushed in front of the jobs that are in Redis already. Behind a hundred thousand of them, all of
        which the consumers release, the probe would take half an hour.
        """
        probe = publishing.take_probe(connection, [queue for queue in QUEUES if queue not in self._blocked_until])
        pushed = 0
        for row in probe:
            epoch = self._broker.push([row], in_front=True)
            if not self._without_refused([row]):
                continue
            _log.info("messages.published", message_ids=[row.id], meaning="it tries the mail server")
            publishing.mark_published(connection, [row.id], epoch, self._publish_lease_seconds)
            publishing.mark_probe(connection, row.id, self._probe_timeout_seconds)
            pushed += 1
        return pushed


def _emptied(batch: Batch, size: int) -> AbstractSet[str]:
    """Return the queues whose due messages are certainly all in the batch, because it is not full of them.

    Critical may use the whole batch but the part that may be reserved for default, whether that part was used or not.
    """
    critical = sum(row.queue == CRITICAL for row in batch.jobs)
    free_places = {CRITICAL: size - publishing.reserved_for_default(size) - critical, DEFAULT: size - len(batch.jobs)}
    return {queue for queue, places in free_places.items() if places > 0}
