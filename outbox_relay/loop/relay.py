"""The relay's loop: reap, publish, delete what is old, sleep.

Each step is bounded, so a signal ends the loop within seconds.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Final

import psycopg
import structlog

from outbox_relay.broker import Broker, BrokerUnavailableError
from outbox_relay.loop.heartbeat import Heartbeat
from outbox_relay.loop.listener import Listener
from outbox_relay.loop.maintenance.schedule import Maintenance
from outbox_relay.loop.observer import Observer
from outbox_relay.loop.pacing import POLLING_SHARE, REAPING_SHARE, Pacing, gathering_pause, interval
from outbox_relay.loop.publishing.publisher import Publisher
from outbox_relay.loop.reaper import Reaper
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import DbConnection, UnsuitableDatabaseError, connect, keep_plans
from shared.doubling_pause import DoublingPause
from shared.outage_causes import postgresql_cause
from shared.outbox import publishing
from shared.settings.relay import RelaySettings

_log = structlog.get_logger(__name__)

_FIRST_OUTAGE_PAUSE_SECONDS: Final = 0.25
_SHORTEST_SLEEP_SECONDS: Final = 0.02
"""When messages are due but another relay has locked them, an immediate second try would only cost time."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass of the loop did.

    Attributes:
        published: the number of messages.
        has_more: whether more messages may be due.

    """

    published: int = 0
    has_more: bool = False


class Relay:
    """Publishes messages until it is stopped. Any number of relays may run side by side."""

    def __init__(
        self,
        settings: RelaySettings,
        broker: Broker,
        wakeup: WakeupPipe,
        observer: Observer | None = None,
        *,
        pacing: Pacing | None = None,
        gathering: DoublingPause | None = None,
    ) -> None:
        """Keep what the loop needs; nothing is opened yet.

        Args:
            settings: the relay's settings.
            broker: where jobs are pushed.
            wakeup: ends a sleep when `stop` is called.
            observer: receives the result of each pass.
            pacing: the times between steps, and their sizes.
            gathering: the pause after a pass that published.

        """
        self._settings = settings
        self._pacing = pacing or Pacing()
        self._observer = observer or Observer()
        self._broker = broker
        self._wakeup = wakeup
        self._publisher = Publisher(
            broker,
            publish_lease_seconds=settings.publish_lease_seconds,
            probe_timeout_seconds=settings.run_lease_seconds,
        )
        self._reaper = Reaper(
            broker,
            publish_lease_seconds=settings.publish_lease_seconds,
            pop_to_claim_seconds=self._pacing.pop_to_claim_seconds,
            postmaster_grace_seconds=self._pacing.postmaster_grace_seconds,
        )
        self._listener = Listener(settings.listen_url)
        self._maintenance = Maintenance(settings, self._observer, self._pacing)
        self._heartbeat = Heartbeat(self._pacing.beat_seconds)
        self._gathering = gathering or gathering_pause()
        self._connection: DbConnection | None = None
        self._stopping = False
        self._outage: str | None = None
        self._outage_pause = DoublingPause(_FIRST_OUTAGE_PAUSE_SECONDS, self._pacing.longest_outage_pause_seconds)
        self._reap_at = 0.0
        self._reap_running_from = 0.0

    def stop(self) -> None:
        """Make the loop end after the current batch. Safe in a signal handler."""
        self._stopping = True
        self._wakeup.wake()

    def run(self) -> None:
        """Repeat passes until stop() is called. Outages of PostgreSQL and Redis are waited out.

        Raises:
            UnsuitableDatabaseError: no message can be published from this database.

        """
        while not self._stopping:
            self._listener.prepare()
            try:
                done = self.run_once()
                if done.published and not done.has_more:
                    self._wakeup.sleep(self._gathering.next())
                seconds = 0.0 if done.has_more else self._seconds_to_sleep(done)
                if seconds:
                    self._gathering.reset()
            except UnsuitableDatabaseError:
                raise
            except (psycopg.Error, BrokerUnavailableError) as exc:
                seconds = self._note_outage(exc)
            else:
                self._note_recovery()
            if seconds and not self._stopping:
                self._listener.sleep(seconds, self._wakeup)

    def run_once(self) -> Pass:
        """Do one bounded pass: a sweep of the reaper if it is time for one, one batch, one step of each deletion.

        Raises:
            psycopg.Error: PostgreSQL is unreachable or refused; the current transaction was rolled back.
            BrokerUnavailableError: Redis is unreachable; the current batch was rolled back.

        """
        self._observer.pass_begins()
        connection = self.connect()
        with self._observer.step("reap"):
            self._reap(connection)
        with self._observer.step("publish"):
            published = self._publisher.publish_batch(connection, self._settings.batch_size)
        with self._observer.step("prune"):
            pruned = self._maintenance.prune(connection)
        with self._observer.step("expire"):
            self._maintenance.expire(connection)
        # Last, so that only a relay whose passes work counts as alive.
        self._heartbeat.beat(connection)
        self._observer.pass_ends(published, pruned)
        return Pass(published, self._publisher.has_more)

    def drain(self) -> int:
        """Publish what is due now, after one sweep of the reaper, and return the number of messages.

        Raises:
            psycopg.Error: PostgreSQL is unreachable; what was published before stays published.
            BrokerUnavailableError: the same for Redis.

        """
        connection = self.connect()
        due_before = publishing.clock(connection)
        self._reap(connection)
        total = 0
        while not self._stopping:
            published = self._publisher.publish_batch(connection, self._settings.batch_size, due_before)
            if not published:
                if self._publisher.looked_everywhere:
                    break
                self._publisher.rescan()  # another relay may have released rows that it had locked
            total += published
        return total

    @property
    def blocked_queues(self) -> list[str]:
        """The keys in Redis that hold no list, so that nothing can be pushed to their queues."""
        return self._publisher.blocked_queues

    def connect(self) -> DbConnection:
        """Return the connection to PostgreSQL, opened if there is none. Raises psycopg.OperationalError."""
        if self._connection is None:
            self._connection = connect(self._settings.database_url, "outbox-relay")
            keep_plans(self._connection)
            if self._outage is not None:
                self._reap_running_from = monotonic() + self._pacing.reconnect_grace_seconds
        return self._connection

    def close(self) -> None:
        """Close all connections; PostgreSQL rolls an open transaction back."""
        self._disconnect()
        self._listener.close()
        self._broker.close()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _reap(self, connection: DbConnection) -> None:
        if monotonic() < self._reap_at:
            return
        began = monotonic()
        self._broker.leave_replaced_master()
        reaped = self._reaper.reap_running(connection) if began >= self._reap_running_from else ()
        for claim in reaped:
            _log.warning("claim.reaped", message_id=claim.id, attempt=claim.attempt, status=claim.status)
        # Before the sweep, which fails while Redis is unavailable: the claims stay reaped.
        self._observer.claims_reaped(reaped)
        sweep = self._reaper.reap_published(connection)
        self._observer.sweep_ended(sweep)
        next_step = began + interval(began, REAPING_SHARE if reaped or sweep.expired else POLLING_SHARE)
        self._reap_at = next_step if sweep.is_partial else max(next_step, monotonic() + self._pacing.reap_seconds)
        if sweep.returned_by_lease or sweep.returned_by_epoch:
            _log.warning(
                "jobs.lost",
                returned_by_lease=sweep.returned_by_lease,
                returned_by_epoch=sweep.returned_by_epoch,
            )
        elif sweep.renewed:
            _log.info("jobs.found", renewed=sweep.renewed, meaning="their jobs wait longer than a lease")

    def _seconds_to_sleep(self, done: Pass) -> float:
        next_due = self._publisher.next_due(self.connect())
        shortest = 0.0 if done.published else _SHORTEST_SLEEP_SECONDS
        until_due = self._settings.poll_seconds if next_due is None else max(shortest, next_due)
        # Never longer than beat_seconds: heartbeats and sweeps continue.
        return min(
            self._settings.poll_seconds, until_due, self._maintenance.seconds_until_next(), self._pacing.beat_seconds
        )

    def _note_outage(self, exc: Exception) -> float:
        """Log an outage once, close a broken connection, and return the pause before the next pass."""
        what = "redis" if isinstance(exc, BrokerUnavailableError) else "postgresql"
        if self._outage != what:
            self._outage = what
            self._observer.outage(what)
            self._outage_pause.reset()
            # Only at the first error: a full Redis still answers the reaper, which may use a fifth of the time.
            self._reap_at = 0.0
            _log.error(
                "redis.unavailable" if what == "redis" else "postgresql.unavailable",
                error=self._describe(exc),
                meaning="trying again until it is back",
            )
        if what == "postgresql":
            self._disconnect()
        return self._outage_pause.next()

    def _note_recovery(self) -> None:
        if self._outage is not None:
            _log.info("redis.recovered" if self._outage == "redis" else "postgresql.recovered")
            self._observer.recovery()
            self._outage = None
            self._outage_pause.reset()

    def _describe(self, exc: Exception) -> str:
        """Return the reason without a library's text, which may contain a person's address."""
        if isinstance(exc, psycopg.errors.IdleInTransactionSessionTimeout):
            return "this relay froze in the middle of a batch: PostgreSQL ended its transaction, nothing was changed"
        if isinstance(exc, psycopg.errors.UndefinedTable):
            return "a table is missing: apply schema.sql"
        if isinstance(exc, psycopg.Error):
            return postgresql_cause(exc, self._settings.database_url)
        return str(exc)
