"""Publishing: from pending rows to jobs on Redis, one bounded batch at a time."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker import Broker
from outbox_relay.loop.pacing import LOOKING_SHARE, period
from shared.database.connections import transaction
from shared.logs import lines_of
from shared.outbox import publishing
from shared.outbox.messages import CRITICAL, DEFAULT, QUEUES
from shared.outbox.publishing import BEGINNING, END, Batch, DbConnection, Row, Start

_log = structlog.get_logger(__name__)

LOOK_BACK_SECONDS: Final = 1.0
"""The time between two looks from the beginning, for messages that were committed late, or came back. More where such a
look takes long."""

BLOCKED_SECONDS: Final = 1.0
"""For so long no message is taken for a queue whose key in Redis holds something else than a list."""

LATE_SECONDS: Final = 10.0
"""Messages are committed in another order than that of due_at, by as much as their transactions' lengths differ."""


class Publisher:
    """Publishes batches.

    It remembers how far it has come in each queue. The index keeps the entries of published rows until a vacuum, and no
    vacuum takes them while somebody holds an old snapshot: from the beginning, each look would walk over all of them.
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
        self._starts = BEGINNING
        self._look_back_at = 0.0
        self._blocked_until: dict[str, float] = {}
        """Queues whose key in Redis holds no list, and when (monotonic) they are tried again."""
        self._named_as_blocked: set[str] = set()
        self.looked_back = True
        """Whether the last batch was taken from the beginning of the queues."""
        self.has_more = False
        """Whether more may be due than the last batch held."""

    def publish_batch(self, connection: DbConnection, size: int, due_before: float | None = None) -> int:
        """Publish up to `size` due messages and return how many.

        The row locks are held across the push, so that no other relay pushes the same rows; the socket's timeouts
        and PostgreSQL's limit on idle transactions bound that time.

        Raises:
            BrokerUnavailableError: the batch was rolled back; its rows are pending as before.

        """
        self._unblock()
        while True:
            blocked_before = len(self._blocked_until)
            published = self._publish_next(connection, size, due_before)
            if published or len(self._blocked_until) == blocked_before:
                return published
            # All that was taken belongs to a queue that takes nothing: now what is due for the other one.

    def _publish_next(self, connection: DbConnection, size: int, due_before: float | None) -> int:
        with transaction(connection):
            batch = self._take(connection, size, due_before)
            published = self._publish(connection, batch.rows) if batch.rows else self._publish_probe(connection)
            emptied = _emptied(batch, size)
            starts = self._starts_behind(connection, batch, emptied)
        self._starts = starts
        self.has_more = len(emptied) < len(QUEUES)
        return published

    def _publish(self, connection: DbConnection, rows: Sequence[Row]) -> int:
        epoch = self._broker.push(rows)
        pushed = self._without_refused(rows)
        for ids in lines_of([row.id for row in pushed]):
            _log.info("messages.published", message_ids=ids)
        publishing.mark_published(connection, [row.id for row in pushed], epoch, self._publish_lease_seconds)
        return len(pushed)

    def _without_refused(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Give the rows whose jobs were pushed; nothing is taken for the others' queues for a while."""
        refused = self._broker.refused_queues
        for queue in refused:
            if queue not in self._named_as_blocked:
                _log.error(
                    "queue.blocked",
                    key=self._broker.queue_key(queue),
                    meaning="the key holds no list: the queue's messages stay pending",
                    fix="rename the key, or delete it if nobody misses what it holds",
                )
            self._named_as_blocked.add(queue)
            self._blocked_until[queue] = monotonic() + BLOCKED_SECONDS
        for queue in {row.queue for row in rows} - refused:
            if queue in self._named_as_blocked:
                self._named_as_blocked.remove(queue)
                _log.info("queue.unblocked", key=self._broker.queue_key(queue))
        return [row for row in rows if row.queue not in refused]

    def _unblock(self) -> None:
        """Try a blocked queue again, from its beginning, when its time has come."""
        for queue in [queue for queue, until in self._blocked_until.items() if monotonic() >= until]:
            del self._blocked_until[queue]
            self.look_back()

    @property
    def blocked_queues(self) -> list[str]:
        """Name the keys in Redis that hold no list, so that their queues' messages stay pending."""
        return [self._broker.queue_key(queue) for queue in sorted(self._named_as_blocked)]

    def look_back(self) -> None:
        """Take the next batch from the beginning of the queues."""
        self._look_back_at = 0.0

    def next_due(self, connection: DbConnection) -> float | None:
        """Give the seconds until it is time to look again (negative: it is), or None when nothing is pending."""
        if self.looked_back:
            # This too walks over everything.
            began = monotonic()
            due = publishing.next_due(connection, self._unblocked(BEGINNING))
            self._look_back_at += period(began, LOOKING_SHARE)
            return due
        due = publishing.next_due(connection, self._unblocked(self._starts))
        until_look_back = self._look_back_at - monotonic()
        return until_look_back if due is None else min(due, until_look_back)

    def _take(self, connection: DbConnection, size: int, due_before: float | None) -> Batch:
        """Take from where the last batches ended, and from the beginning once a second."""
        began = monotonic()
        self.looked_back = began >= self._look_back_at
        if not self.looked_back:
            return publishing.take_batch(connection, size, due_before, self._unblocked(self._starts))
        batch = publishing.take_batch(connection, size, due_before, self._unblocked(BEGINNING))
        self._look_back_at = began + max(LOOK_BACK_SECONDS, period(began, LOOKING_SHARE))
        return batch

    def _unblocked(self, starts: Mapping[str, Start]) -> Mapping[str, Start]:
        """Give the starts, so that of a blocked queue nothing is seen."""
        return {**starts, **dict.fromkeys(self._blocked_until, END)} if self._blocked_until else starts

    def _starts_behind(self, connection: DbConnection, batch: Batch, emptied: AbstractSet[str]) -> Mapping[str, Start]:
        """Give the starts behind a batch.

        Of a queue that has more: its last row, since others may be due at the same moment, as whatever one statement
        appends is. Of a queue of which all that was due is taken: a few seconds ago.
        """
        starts = dict(batch.ends)
        if emptied and (recent := publishing.start_before_now(connection, LATE_SECONDS)):
            starts |= dict.fromkeys(emptied, recent)
        return {**self._starts, **starts}

    def _publish_probe(self, connection: DbConnection) -> int:
        """Publish the one message that may be tried while the mail server is unreachable.

        It goes before the jobs that were pushed while the server was well: behind a hundred thousand of them, which the
        consumers all put back, nobody would learn for half an hour that the server has returned.
        """
        probe = publishing.take_probe(connection, [queue for queue in QUEUES if queue not in self._blocked_until])
        pushed = 0
        for row in probe:
            epoch = self._broker.push([row], in_front=True)
            if not self._without_refused([row]):
                continue
            _log.info("messages.published", message_ids=[row.id], meaning="it tries the mail server")
            publishing.mark_published(connection, [row.id], epoch, self._publish_lease_seconds)
            publishing.mark_probe(connection, row.id, self._probe_patience_seconds)
            pushed += 1
        return pushed


def _emptied(batch: Batch, size: int) -> AbstractSet[str]:
    """Give the queues of which the batch surely holds all that was due: they left room in it that was theirs.

    Critical is given all of it but what may be kept free for default, whether default has a use for that or not.
    """
    critical = sum(row.queue == CRITICAL for row in batch.rows)
    room = {CRITICAL: size - publishing.share_of_default(size) - critical, DEFAULT: size - len(batch.rows)}
    return {queue for queue, left in room.items() if left > 0}
