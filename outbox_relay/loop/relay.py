"""The relay's loop: reap, publish, sleep. One bounded piece of work at a time, so that a signal is obeyed at once."""

from dataclasses import dataclass
from time import monotonic
from typing import Final

import psycopg
import structlog

from outbox_relay.broker import Broker, BrokerUnavailableError
from outbox_relay.loop.expiry import AccountExpiry
from outbox_relay.loop.heartbeat import BEAT_SECONDS, Heartbeat
from outbox_relay.loop.mail_pruner import MailPruner
from outbox_relay.loop.observer import Observer
from outbox_relay.loop.pacing import EXPIRY_SHARE, LOOKING_SHARE, PRUNING_SHARE, REAPING_SHARE, period
from outbox_relay.loop.pruner import PRUNED_AT_ONCE, Pruner
from outbox_relay.loop.publisher import Publisher
from outbox_relay.loop.reaper import Reaper
from outbox_relay.loop.rest import Rest
from outbox_relay.loop.wakeup import Alarm, Doorbell
from shared.database.connections import UnsuitableDatabaseError, connect, keep_plans
from shared.outage_causes import postgresql_cause
from shared.outbox import publishing
from shared.outbox.publishing import DbConnection
from shared.settings.processes import RelaySettings

_log = structlog.get_logger(__name__)

REAP_SECONDS: Final = 1.0
RECONNECT_GRACE_SECONDS: Final = 15.0
"""After PostgreSQL came back the consumers get this long to acknowledge what they finished while it was away."""

_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PRUNE_SECONDS: Final = 60.0
_EXPIRY_SECONDS: Final = 60.0
_SHORTEST_SLEEP_SECONDS: Final = 0.02
"""When messages are due but another relay holds them, looking again at once would only burn its cores."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass of the loop did."""

    published: int = 0
    full: bool = False


class Relay:
    """Drains the outbox until it is told to stop. Any number of relays may run side by side."""

    def __init__(self, settings: RelaySettings, broker: Broker, alarm: Alarm, observer: Observer | None = None) -> None:
        """Keep what the loop needs; nothing is opened yet."""
        self._settings = settings
        self._broker = broker
        self._alarm = alarm
        self._publisher = Publisher(
            broker,
            publish_lease_seconds=settings.publish_lease_seconds,
            probe_patience_seconds=settings.run_lease_seconds,
        )
        self._reaper = Reaper(broker, publish_lease_seconds=settings.publish_lease_seconds)
        self._doorbell = Doorbell(settings.listen_url)
        self._pruner = Pruner(settings.keep_done_days)
        self._expiry = AccountExpiry(settings.unverified_days)
        self._mail_pruner = MailPruner(settings.unverified_days)
        self._heartbeat = Heartbeat()
        self._rest = Rest()
        self._observer = observer or Observer()
        self._connection: DbConnection | None = None
        self._stopping = False
        self._outage: str | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._reap_at = 0.0
        self._reap_running_from = 0.0
        self._prune_at = 0.0
        self._expire_at = 0.0

    def stop(self) -> None:
        """Ask the loop to end after the batch in hand. Safe in a signal handler."""
        self._stopping = True
        self._alarm.ring()

    def run(self) -> None:
        """Work until stop() is called. Outages of PostgreSQL and Redis are waited out.

        Raises:
            UnsuitableDatabaseError: waiting would not help.

        """
        while not self._stopping:
            self._doorbell.prepare()
            try:
                done = self.run_once()
                if done.published and not done.full:
                    self._rest.take(self._alarm)
                seconds = 0.0 if done.full else self._seconds_to_sleep(done)
                if seconds:
                    self._rest.end()
            except UnsuitableDatabaseError:
                raise
            except (psycopg.Error, BrokerUnavailableError) as exc:
                seconds = self._note_outage(exc)
            else:
                self._note_recovery()
            if seconds and not self._stopping:
                self._doorbell.sleep(seconds, self._alarm)

    def run_once(self) -> Pass:
        """Do one bounded pass: a reaper round if it is time for one, one batch, one step of pruning, one of expiry.

        Raises:
            psycopg.Error: PostgreSQL is unreachable or refused; the transaction in hand was rolled back.
            BrokerUnavailableError: Redis is unreachable; the batch in hand was rolled back.

        """
        self._observer.pass_begins()
        connection = self.connect()
        with self._observer.step("reap"):
            self._reap(connection)
        with self._observer.step("publish"):
            published = self._publisher.publish_batch(connection, self._settings.batch_size)
        with self._observer.step("prune"):
            pruned = self._prune(connection)
        with self._observer.step("expire"):
            self._expire(connection)
        # Last: a relay is seen by others for its work, not for its start.
        self._heartbeat.beat(connection)
        self._observer.pass_ends(published, pruned)
        return Pass(published, self._publisher.has_more)

    def drain(self) -> int:
        """Publish what was due when this began, after one reaper round, and return how many messages.

        Raises:
            psycopg.Error: PostgreSQL is unreachable; what was published until then stays published.
            BrokerUnavailableError: the same for Redis.

        """
        connection = self.connect()
        due_before = publishing.clock(connection)
        self._reap(connection)
        total = 0
        while not self._stopping:
            published = self._publisher.publish_batch(connection, self._settings.batch_size, due_before)
            if not published:
                if self._publisher.looked_back:
                    break
                self._publisher.look_back()  # another relay may have given back what it held
            total += published
        return total

    @property
    def blocked_queues(self) -> list[str]:
        """Name the keys in Redis whose queues take nothing."""
        return self._publisher.blocked_queues

    def connect(self) -> DbConnection:
        """Give the connection to PostgreSQL, and open it if there is none. Raises psycopg.OperationalError."""
        if self._connection is None:
            self._connection = connect(self._settings.database_url, "outbox-relay")
            keep_plans(self._connection)
            if self._outage is not None:
                self._reap_running_from = monotonic() + RECONNECT_GRACE_SECONDS
        return self._connection

    def close(self) -> None:
        """Drop all connections; an open transaction is rolled back by PostgreSQL."""
        self._disconnect()
        self._doorbell.close()
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
        # At once: Redis may be away for what comes next, and the claims stay reaped.
        self._observer.claims_reaped(reaped)
        round_ = self._reaper.reap_published(connection)
        self._observer.round_ends(round_)
        next_step = began + period(began, REAPING_SHARE if reaped or round_.suspects else LOOKING_SHARE)
        self._reap_at = next_step if round_.is_partial else max(next_step, monotonic() + REAP_SECONDS)
        if round_.returned_by_lease or round_.returned_by_epoch:
            _log.warning(
                "jobs.lost",
                returned_by_lease=round_.returned_by_lease,
                returned_by_epoch=round_.returned_by_epoch,
            )
        elif round_.renewed:
            _log.info("jobs.found", renewed=round_.renewed, meaning="their jobs wait longer than a lease")

    def _prune(self, connection: DbConnection) -> int:
        """Delete one step of history and of mails that count no longer: soon again while there is more, else later."""
        if monotonic() < self._prune_at:
            return 0
        began = monotonic()
        pruned = self._pruner.step(connection)
        is_partial = pruned == PRUNED_AT_ONCE or self._mail_pruner.step(connection)
        self._prune_at = began + period(began, PRUNING_SHARE) if is_partial else monotonic() + _PRUNE_SECONDS
        return pruned

    def _expire(self, connection: DbConnection) -> None:
        """Delete one step of accounts that were never verified: soon again in the same round, else after a while."""
        if monotonic() < self._expire_at:
            return
        began = monotonic()
        self._expire_at = began + _EXPIRY_SECONDS
        try:
            step = self._expiry.step(connection)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn) as exc:
            # Of a role or a schema of the version before: messages do not wait for it.
            _log.error(
                "accounts.not_expired", error=type(exc).__name__, meaning="run docs/roles.sql and the migrations"
            )
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
            _log.warning("accounts.not_expired", error=type(exc).__name__, meaning="a link of theirs stayed locked")
            return
        if step.deleted:
            _log.info("accounts.expired", accounts=step.deleted)
            self._observer.accounts_expired(step.deleted)
        if step.is_partial:
            self._expire_at = began + period(began, EXPIRY_SHARE)

    def _seconds_to_sleep(self, done: Pass) -> float:
        next_due = self._publisher.next_due(self.connect())
        shortest = 0.0 if done.published else _SHORTEST_SLEEP_SECONDS
        until_due = self._settings.poll_seconds if next_due is None else max(shortest, next_due)
        until_pruning = max(0.0, min(self._prune_at, self._expire_at) - monotonic())
        # However long that may be, the heartbeat goes on, and so does the search for lost jobs.
        return min(self._settings.poll_seconds, until_due, until_pruning, BEAT_SECONDS)

    def _note_outage(self, exc: Exception) -> float:
        """Say once what is away, drop the connection if it is broken, and give the pause before the next try."""
        what = "redis" if isinstance(exc, BrokerUnavailableError) else "postgresql"
        if self._outage != what:
            self._outage = what
            self._observer.outage(what)
            self._pause_seconds = _FIRST_PAUSE_SECONDS
            # Once: a Redis that is full still answers the reaper, whose share of the time is a fifth.
            self._reap_at = 0.0
            _log.error(
                "redis.unavailable" if what == "redis" else "postgresql.unavailable",
                error=self._describe(exc),
                meaning="trying again until it is back",
            )
        if what == "postgresql":
            self._disconnect()
        pause = self._pause_seconds
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause * 2)
        return pause

    def _note_recovery(self) -> None:
        if self._outage is not None:
            _log.info("redis.recovered" if self._outage == "redis" else "postgresql.recovered")
            self._observer.recovery()
            self._outage = None
            self._pause_seconds = _FIRST_PAUSE_SECONDS

    def _describe(self, exc: Exception) -> str:
        """Name the error without the text of a library, which may hold an address; our own texts are safe."""
        if isinstance(exc, psycopg.errors.IdleInTransactionSessionTimeout):
            return "this relay stood still in mid-batch: PostgreSQL ended its transaction, nothing was changed"
        if isinstance(exc, psycopg.errors.UndefinedTable):
            return "a table is missing: apply schema.sql"
        if isinstance(exc, psycopg.Error):
            return postgresql_cause(exc, self._settings.database_url)
        return str(exc)
