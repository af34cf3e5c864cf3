"""Waits for a late answer of the mail server, under a lease that is renewed before it ends.

A server may take minutes for its answer to the last dot (RFC 5321, section 4.5.3.2.6, asks for ten). A client that
gives up earlier and tries again sends a second copy. So the first timeout fails the attempt, and the message's next
attempts wait longer.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import psycopg
import structlog

from consumer.model.message import ClaimedMessage
from consumer.stages.database import Database
from consumer.stages.database_retries import database_pause
from shared.outbox.claiming import renewals
from shared.outbox.messages import LONGEST_ANSWER_SECONDS

_log = structlog.get_logger(__name__)

_LOCK_SECONDS: Final = 1.0
"""No process of this service locks the row of a running message for this long."""


class LateAnswers:
    """Limits how many senders of a process wait for a late answer, so that the others can send their mails."""

    def __init__(
        self,
        database_url: str,
        *,
        senders: Callable[[], int],
        shutting_down: Callable[[], bool] = lambda: False,
        after_renewal: Callable[[], object] = lambda: None,
        longest_seconds: float = LONGEST_ANSWER_SECONDS,
    ) -> None:
        """Set the limits.

        Args:
            database_url: where PostgreSQL is. Each renewal opens a connection, since a wait is much longer than that.
            senders: returns how many mails can be sent at once now. Half of them may wait, but at least one.
            shutting_down: whether this process is shutting down. Then no lease is renewed, and a wait ends with its
                lease.
            after_renewal: called after each renewal of a lease.
            longest_seconds: the longest wait for one answer.

        """
        self._database_url = database_url
        self._senders = senders
        self._shutting_down = shutting_down
        self._after_renewal = after_renewal
        self._longest_seconds = longest_seconds
        self._lock = threading.Lock()
        self._waiting = 0

    @contextmanager
    def place(self, message: ClaimedMessage) -> Iterator["LateAnswer | None"]:
        """Yield the means to wait for one message's answer, or None if too many wait already."""
        if not self._take_place():
            yield None
            return
        try:
            yield LateAnswer(
                message,
                Database(self._database_url),
                until=monotonic() + self._longest_seconds,
                shutting_down=self._shutting_down,
                after_renewal=self._after_renewal,
            )
        finally:
            with self._lock:
                self._waiting -= 1

    def _take_place(self) -> bool:
        with self._lock:
            is_free = self._waiting < max(1, self._senders() // 2)
            self._waiting += is_free
            return is_free


class LateAnswer:
    """One message's wait.

    Attributes:
        message: the message, with its present lease.

    """

    def __init__(
        self,
        message: ClaimedMessage,
        database: Database,
        *,
        until: float,
        shutting_down: Callable[[], bool],
        after_renewal: Callable[[], object],
    ) -> None:
        """Open nothing yet. `until` is the end of the wait (monotonic)."""
        self.message = message
        self._database = database
        self._shutting_down = shutting_down
        self._after_renewal = after_renewal
        self._until = until

    def extend(self) -> float | None:
        """Renew the lease and return the moment (monotonic) until which to wait, or None to give up.

        Call it when the present lease's time for the answer is over. The last third of the lease is left for the
        renewal, or for recording that there was no answer.
        """
        if self._until <= monotonic() or self._shutting_down():
            return None
        try:
            return self._renewed_until()
        finally:
            self._database.close()

    def _renewed_until(self) -> float | None:
        pause = database_pause()
        while True:
            begun_at = monotonic()
            try:
                with self._database.transaction(lock_seconds=_LOCK_SECONDS) as connection:
                    is_ours = renewals.renew_claim(connection, self.message.claim, self.message.lease.seconds)
            except psycopg.Error as exc:
                # It may have been renewed or not, so the lease that is certain counts.
                if self.message.lease.is_over() or self._shutting_down():
                    _log.warning("lease.not_renewed", message_id=self.message.claim.id, error=type(exc).__name__)
                    return None
                time.sleep(pause.next())
                continue
            if not is_ours:
                return None
            self.message = self.message.with_lease(self.message.lease.renewed(begun_at))
            self._after_renewal()
            _log.info("lease.renewed", message_id=self.message.claim.id, meaning="the mail server's answer is late")
            return min(self.message.lease.send_until, self._until)
