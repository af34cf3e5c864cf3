"""The metrics of a relay: its own work, and the state of the outbox."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final

import psycopg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from outbox_relay.loop.observer import Observer
from outbox_relay.loop.reaper import SweepResult
from outbox_relay.metrics.latency import SETTLED_SECONDS, LatencyCollector
from outbox_relay.metrics.liveness import Liveness
from shared.database.errors import SCHEMA_MISSING, TAKES_TOO_LONG
from shared.database.prompt_connection import connect_promptly
from shared.database.read_transaction import read_transaction
from shared.outbox.operations.destination_stats import read_destination_stats
from shared.outbox.operations.mail_stats import read_mail_stats
from shared.outbox.operations.prometheus import OutboxCollector, Reading
from shared.outbox.operations.stats import read_dependency_status, read_live_states
from shared.outbox.reaping import Reaped

APPLICATION: Final = "outbox-metrics"
_SERVERS: Final = ("redis", "postgresql")
_STEPS: Final = ("reap", "publish", "prune", "expire")
_BATCH_SIZES: Final = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
_STEP_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class RelayMetrics(Observer):
    """Counts what a relay reports. Every label has a few values, all of them known here."""

    def __init__(
        self,
        database_url: str,
        clock: Callable[[], float] = monotonic,
        *,
        settled_seconds: float = SETTLED_SECONDS,
    ) -> None:
        """Create every metric with the value 0, so that the first event is an increase."""
        self.registry = CollectorRegistry()
        self.liveness = Liveness(clock)
        self._pushed = self._counter("outbox_pushed_messages", "Messages pushed into Redis by this relay")
        self._batches = Histogram(
            "outbox_push_batch_messages",
            "Messages pushed in one batch; empty ones are not counted",
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )
        self._renewed = self._counter(
            "outbox_renewed_messages", "Published messages past their lease whose job was found in Redis"
        )
        self._returned = Counter(
            "outbox_returned_messages",
            "Published messages whose job Redis lost: after a lease, or after a change of Redis' epoch",
            ["cause"],
            registry=self.registry,
        )
        self._reaped = Counter(
            "outbox_reaped_claims",
            "Claims whose lease ended without a result, by the message's new status",
            ["status"],
            registry=self.registry,
        )
        self._pruned = self._counter("outbox_pruned_messages", "Finished messages deleted by age")
        self._expired = self._counter("outbox_expired_accounts", "Accounts deleted that were not verified in time")
        self._outages = Counter(
            "outbox_outages", "How often a server was unavailable to this relay", ["of"], registry=self.registry
        )
        self._away = Gauge(
            "outbox_server_away", "Whether a server is unavailable to this relay now", ["of"], registry=self.registry
        )
        self._step_seconds = Histogram(
            "outbox_step_seconds",
            "Time that one step of a pass took",
            ["step"],
            buckets=_STEP_SECONDS,
            registry=self.registry,
        )
        self._prepare_labels()
        self.registry.register(OutboxCollector(lambda: _read(database_url)))
        self.registry.register(
            LatencyCollector(lambda: connect_promptly(database_url, APPLICATION), settled_seconds=settled_seconds)
        )

    def pass_begins(self) -> None:
        """Record the start of a pass."""
        self.liveness.pass_begins()

    def step(self, name: str) -> AbstractContextManager[object]:
        """Measure the time of a step."""
        return self._step_seconds.labels(name).time()

    def claims_reaped(self, claims: Sequence[Reaped]) -> None:
        """Count them."""
        for claim in claims:
            self._reaped.labels(claim.status).inc()

    def sweep_ended(self, sweep: SweepResult) -> None:
        """Count what the sweep has done."""
        self._renewed.inc(sweep.renewed)
        self._returned.labels("lease").inc(sweep.returned_by_lease)
        self._returned.labels("epoch").inc(sweep.returned_by_epoch)

    def pass_ends(self, published: int, pruned: int) -> None:
        """Count what the pass has done."""
        self.liveness.pass_worked()
        if published:
            self._pushed.inc(published)
            self._batches.observe(published)
        self._pruned.inc(pruned)

    def accounts_expired(self, accounts: int) -> None:
        """Count them."""
        self._expired.inc(accounts)

    def outage(self, of: str) -> None:
        """Count an outage."""
        self.recovery()
        self.liveness.outage(of)
        self._outages.labels(of).inc()
        self._away.labels(of).set(1)

    def recovery(self) -> None:
        """Record that every server is available again."""
        self.liveness.recovery()
        for server in _SERVERS:
            self._away.labels(server).set(0)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, registry=self.registry)

    def _prepare_labels(self) -> None:
        for cause in ("lease", "epoch"):
            self._returned.labels(cause)
        for status in ("pending", "dead"):
            self._reaped.labels(status)
        for server in _SERVERS:
            self._outages.labels(server)
            self._away.labels(server)
        for step in _STEPS:
            self._step_seconds.labels(step)


def _read(database_url: str) -> Reading:
    try:
        with connect_promptly(database_url, APPLICATION) as connection, read_transaction(connection):
            live = read_live_states(connection)
            return Reading(
                is_up=True,
                live=live,
                destinations=read_destination_stats(connection, live),
                dependencies=read_dependency_status(connection),
                mails=read_mail_stats(connection),
            )
    except TAKES_TOO_LONG:
        return Reading(is_up=True, unreadable="timeout")
    except SCHEMA_MISSING:
        return Reading(is_up=True, unreadable="schema")
    except psycopg.errors.InsufficientPrivilege:
        return Reading(is_up=True, unreadable="grant")
    except psycopg.Error:
        return Reading(is_up=False)
