"""When the relay deletes what is old: history, old records of mails, unverified accounts."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import psycopg
import structlog

from outbox_relay.loop.maintenance.expiry import AccountExpiry
from outbox_relay.loop.maintenance.mail_pruner import MailPruner
from outbox_relay.loop.maintenance.pruner import PRUNED_AT_ONCE, Pruner
from outbox_relay.loop.observer import Observer
from outbox_relay.loop.pacing import EXPIRY_SHARE, PRUNING_SHARE, Pacing, interval
from shared.database.connections import DbConnection
from shared.database.errors import LOCKED
from shared.settings.relay import RelaySettings

_log = structlog.get_logger(__name__)

_OTHER_VERSION: Final = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
)
"""Errors of a role or a schema of another version. Messages are published all the same."""


class Maintenance:
    """Deletes what is too old. If a step finds more to delete, the next one follows soon, else after a minute."""

    def __init__(self, settings: RelaySettings, observer: Observer, pacing: Pacing) -> None:
        self._pruner = Pruner(settings.keep_done_days)
        self._mail_pruner = MailPruner(settings.unverified_days)
        self._expiry = AccountExpiry(settings.unverified_days, accounts_at_once=pacing.accounts_at_once)
        self._observer = observer
        self._pacing = pacing
        self._prune_at = 0.0
        self._expire_at = 0.0

    def prune(self, connection: DbConnection) -> int:
        """Delete one step of history and of records of mails, if it is time to; return how many messages were deleted.

        Raises:
            psycopg.Error: PostgreSQL is unreachable or refused.

        """
        if monotonic() < self._prune_at:
            return 0
        began = monotonic()
        pruned = self._pruner.step(connection)
        is_partial = pruned == PRUNED_AT_ONCE
        if not is_partial:
            with _postponed_on_error("verification_mails.not_pruned"):
                is_partial = self._mail_pruner.step(connection)
        self._prune_at = (
            began + interval(began, PRUNING_SHARE) if is_partial else monotonic() + self._pacing.prune_seconds
        )
        return pruned

    def expire(self, connection: DbConnection) -> None:
        """Delete one step of the accounts that were never verified, if it is time to.

        Raises:
            psycopg.Error: PostgreSQL is unreachable or refused.

        """
        if monotonic() < self._expire_at:
            return
        began = monotonic()
        self._expire_at = began + self._pacing.expire_seconds
        with _postponed_on_error("accounts.not_expired"):
            step = self._expiry.step(connection)
            if step.deleted:
                _log.info("accounts.expired", accounts=step.deleted)
                self._observer.accounts_expired(step.deleted)
            if step.is_partial:
                self._expire_at = began + interval(began, EXPIRY_SHARE)

    def seconds_until_next(self) -> float:
        """Return the seconds until the next step; 0 when it is time now."""
        return max(0.0, min(self._prune_at, self._expire_at) - monotonic())


@contextmanager
def _postponed_on_error(failure_event: str) -> Iterator[None]:
    """Log the errors that must not keep messages from being published; the next step tries again."""
    try:
        yield
    except _OTHER_VERSION as exc:
        _log.error(failure_event, error=type(exc).__name__, meaning="run docs/roles.sql and the migrations")
    except LOCKED as exc:
        _log.warning(failure_event, error=type(exc).__name__, meaning="a row stayed locked; the next step tries again")
