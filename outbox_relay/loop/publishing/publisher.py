"""Publish: turn pending rows into jobs in Redis, one bounded batch at a time."""

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from math import inf
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker import Broker
from outbox_relay.loop.pacing import POLLING_SHARE, interval
from outbox_relay.loop.publishing.allocation import Candidate, allot
from outbox_relay.loop.publishing.positions import Positions
from outbox_relay.loop.publishing.windows import FULL_WINDOW_SECONDS, Windows
from shared.database.connections import DbConnection, transaction
from shared.logs import lines_of
from shared.outbox import discovery, publishing
from shared.outbox.discovery import Discovered, Head, Range
from shared.outbox.messages import CRITICAL, DEFAULT, QUEUES, STARVED_SECONDS, JobRef

_log = structlog.get_logger(__name__)

RESCAN_SECONDS: Final = 1.0
"""The time between two scans from the start of the known sources, which find messages that were committed late or
released. Longer where such a scan takes long."""

BLOCKED_SECONDS: Final = 1.0
"""How long no message is taken for a queue whose key in Redis holds no list."""

LATE_SECONDS: Final = 10.0
"""Messages are committed in another order than due_at; the difference is the length of a transaction."""

SOURCES_SEARCHED: Final = 100
"""How many sources that are not known one pass finds at most, or as many as a batch has places if these are more."""

QUICK_SEARCH_SECONDS: Final = 0.01
"""Each pass searches for sources that are not known if that takes no longer. Otherwise such a search, like a rescan,
takes a limited part of the time. It takes long where a source whose messages were published is not known any more."""


class Publisher:
    """Publishes batches, each shared out among the destinations that have due messages."""

    def __init__(
        self,
        broker: Broker,
        *,
        publish_lease_seconds: float,
        probe_timeout_seconds: float,
        rescan_seconds: float = RESCAN_SECONDS,
        quick_search_seconds: float = QUICK_SEARCH_SECONDS,
        sources_searched: int = SOURCES_SEARCHED,
    ) -> None:
        """Keep what every batch needs.

        Args:
            broker: where the jobs are pushed.
            publish_lease_seconds: the lease of a published message, after which its job is looked up in Redis.
            probe_timeout_seconds: how long to wait for the result of a probe of an unavailable destination.
            rescan_seconds: the time between two scans from the start of the known sources.
            quick_search_seconds: each pass searches for sources that are not known if that takes no longer.
            sources_searched: how many sources that are not known a small batch finds at most.

        """
        self._broker = broker
        self._publish_lease_seconds = publish_lease_seconds
        self._rescan_seconds = rescan_seconds
        self._probe_timeout_seconds = probe_timeout_seconds
        self._quick_search_seconds = quick_search_seconds
        self._sources_searched = sources_searched
        self._positions = Positions()
        self._windows = Windows()
        self._rescan_at = 0.0
        self._search_at = 0.0
        self._blocked_until: dict[str, float] = {}
        """Queues whose key in Redis holds no list, and the time (monotonic) of the next try."""
        self._named_as_blocked: set[str] = set()
        self._found: Discovered | None = None
        """What the last pass has found, if it published nothing: then it is so still."""
        self.rescanned = True
        """Whether the last batch was taken from the start of the known sources."""
        self.has_more = False
        """Whether more messages may be due than the last batch held."""

    def publish_batch(self, connection: DbConnection, size: int, due_before: float | None = None) -> int:
        """Publish up to `size` due messages and the probes that are due, and return how many.

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
        limit = max(size, self._sources_searched)
        with transaction(connection):
            began = monotonic()
            self.rescanned = began >= self._rescan_at
            ranges = self._positions.ranges() if began >= self._search_at else []
            found = self._discover(connection, ranges, limit)
            if self.rescanned:
                self._rescan_at = began + max(self._rescan_seconds, interval(began, POLLING_SHARE))
            if ranges:
                self._pace_search(began, found)
            before = found.now if due_before is None else min(found.now, due_before)
            candidates = self._candidates(connection, found, before, size)
            jobs = self._take(connection, candidates, size, due_before, found.now)
            published = self._publish(connection, jobs, candidates) if jobs else 0
            published += self._publish_probes(connection, found)
        self._positions.advance(found, candidates, searched=ranges, limit=limit)
        # A search that found nothing due goes on after a pause.
        is_searching = not self._positions.is_round_over and monotonic() >= self._search_at
        self.has_more = any(each.is_waiting for each in candidates) or is_searching
        self._found = None if published else found
        return published

    def _discover(self, connection: DbConnection, ranges: Sequence[Range], limit: int) -> Discovered:
        cursors = self._positions.cursors(at_start=self.rescanned)
        return discovery.discover(connection, cursors, ranges, limit, LATE_SECONDS)

    def _pace_search(self, began: float, found: Discovered) -> None:
        """Let the next search follow at once if this one was quick or found messages that are due."""
        is_useful = any(
            head.range_number is not None and head.due <= found.now and not head.is_blocked for head in found.heads
        )
        is_quick = monotonic() - began < self._quick_search_seconds
        self._search_at = 0.0 if is_useful or is_quick else began + interval(began, POLLING_SHARE)

    def _candidates(self, connection: DbConnection, found: Discovered, before: float, size: int) -> list[Candidate]:
        """Return the sources with due messages: the most urgent queue first, then those that had none for longest."""
        due = [
            head
            for head in found.heads
            if head.due <= before and not head.is_blocked and head.source.queue not in self._blocked_until
        ]
        rooms = self._windows.rooms(connection, due, size)
        candidates = [Candidate(head.source, head.cursor, head.due, rooms.get(head.source)) for head in due]
        return sorted(candidates, key=lambda each: self._positions.last_used(each.source))

    def _take(
        self, connection: DbConnection, candidates: Sequence[Candidate], size: int, due_before: float | None, now: float
    ) -> list[JobRef]:
        """Take up to `size` messages: critical before default, in equal parts from the sources of a queue.

        What one source does not use goes to the others. When default has waited for STARVED_SECONDS, a tenth of the
        batch is kept free for it, so that a critical queue that never empties does not starve it.
        """
        starved = any(
            each.source.queue == DEFAULT and each.room != 0 and each.due < now - STARVED_SECONDS for each in candidates
        )
        left = size
        for queue in QUEUES:
            reserved = publishing.reserved_for_default(size) if queue == CRITICAL and starved else 0
            of_queue = [each for each in candidates if each.source.queue == queue]
            while wanted := allot([each for each in of_queue if each.is_waiting], left - reserved):
                taken = {part.wanted.source: part for part in publishing.take_batch(connection, wanted, due_before)}
                by_source = {each.source: each for each in of_queue}
                for asked in wanted:
                    by_source[asked.source].add(taken.get(asked.source))
                left -= sum(len(part.jobs) for part in taken.values())
        return _in_turns(candidates)

    def _publish(self, connection: DbConnection, rows: Sequence[JobRef], candidates: Sequence[Candidate]) -> int:
        epoch = self._broker.push(rows)
        pushed = self._without_refused(rows)
        for ids in lines_of([row.id for row in pushed]):
            _log.info("messages.published", message_ids=ids)
        publishing.mark_published(connection, [row.id for row in pushed], epoch, self._publish_lease_seconds)
        for each in candidates:
            if each.room is not None:
                self._windows.published(each.source, [job.id for job in each.jobs])
        return len(pushed)

    def _publish_probes(self, connection: DbConnection, found: Discovered) -> int:
        """Publish the messages that probe unavailable destinations, one for each whose next probe is due.

        Their jobs are pushed in front of the jobs that are in Redis already. Behind a hundred thousand of them, all of
        which the consumers release, a probe would take half an hour.
        """
        queues = [queue for queue in QUEUES if queue not in self._blocked_until]
        names = {
            head.source.destination
            for head in found.heads
            if head.is_open
            and not head.is_paused
            and max(head.due, head.probe_at or -inf) <= found.now
            and head.source.queue in queues
        }
        if not names:
            return 0
        probes = publishing.take_probe(connection, sorted(names), queues)
        if not probes:
            return 0
        epoch = self._broker.push([probe.job for probe in probes], in_front=True)
        pushed = set(self._without_refused([probe.job for probe in probes]))
        probes = [probe for probe in probes if probe.job in pushed]
        for probe in probes:
            _log.info(
                "messages.published",
                message_ids=[probe.job.id],
                destination=probe.destination,
                meaning="it probes the unavailable destination",
            )
        publishing.mark_published(connection, [probe.job.id for probe in probes], epoch, self._publish_lease_seconds)
        publishing.mark_probe(connection, probes, self._probe_timeout_seconds)
        return len(probes)

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

    @property
    def looked_everywhere(self) -> bool:
        """Whether the last pass completed a scan of all sources from the start."""
        return self.rescanned and self._positions.is_round_over

    def rescan(self) -> None:
        """Take the next batch from the start of the known sources, and search for others at once."""
        self._rescan_at = self._search_at = 0.0

    def next_due(self, connection: DbConnection) -> float | None:
        """Return the seconds until the next batch is due (0 or less: now), or None when nothing is pending."""
        began = monotonic()
        found = self._found
        if found is None:
            ranges = self._positions.ranges() if began >= self._search_at else []
            found = self._discover(connection, ranges, self._sources_searched)
        dues = [due - found.now for head in found.heads if (due := self._due(head, found.now)) != inf]
        if self.rescanned:
            # This query reads as many index entries as the scan.
            self._rescan_at += interval(began, POLLING_SHARE)
        elif self._rescan_at:
            dues.append(self._rescan_at - began)
        if self._search_at > began:
            dues.append(self._search_at - began)
        return min(dues, default=None)

    def _due(self, head: Head, now: float) -> float:
        """Return when a message of a source may be published; infinite for never."""
        if head.is_paused or head.source.queue in self._blocked_until:
            return inf
        if head.is_open:
            return max(head.due, head.probe_at or -inf)
        return max(head.due, now + FULL_WINDOW_SECONDS) if head.has_window else head.due


def _in_turns(candidates: Iterable[Candidate]) -> list[JobRef]:
    """Return the jobs, those of each queue in turns from its sources."""
    jobs: list[JobRef] = []
    for queue in QUEUES:
        parts = [each.jobs for each in candidates if each.jobs and each.source.queue == queue]
        if len(parts) == 1:
            jobs += parts[0]
        else:
            jobs += [job for job in chain.from_iterable(zip_longest(*parts)) if job is not None]
    return jobs
