"""Waiting for a late answer of the mail server, under a lease that is renewed before it is over.

A server may take minutes for its answer to the last dot (RFC 5321, 4.5.3.2.6 asks for ten). Who gives up sooner and
tries again sends a copy. So the first silence fails the attempt, and the next attempts of that message wait.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import psycopg
import structlog

from consumer.model.message import Held
from consumer.stages.database import Database
from consumer.stages.retry_policy import pauses
from shared.outbox import claims
from shared.outbox.messages import LONGEST_ANSWER_SECONDS

_log = structlog.get_logger(__name__)

_LOCK_SECONDS: Final = 1.0
"""Nobody of ours holds the row of a running message for as long as that."""


class LateAnswers:
    """Lets some senders of a process wait long for an answer, so that the others go on with their mails."""

    def __init__(
        self,
        database_url: str,
        *,
        senders: Callable[[], int],
        is_leaving: Callable[[], bool] = lambda: False,
        after_renewal: Callable[[], object] = lambda: None,
        longest_seconds: float = LONGEST_ANSWER_SECONDS,
    ) -> None:
        """Keep what every wait needs.

        Args:
            database_url: each renewal has a connection of its own, since a wait lasts much longer than it.
            senders: how many can send at once at this moment; half of them may wait, one at least.
            is_leaving: is this process told to leave? Then no lease is renewed, and a wait ends with the one it has.
            after_renewal: called when a lease was renewed.
            longest_seconds: of one wait.

        """
        self._database_url = database_url
        self._senders = senders
        self._is_leaving = is_leaving
        self._after_renewal = after_renewal
        self._longest_seconds = longest_seconds
        self._lock = threading.Lock()
        self._waiting = 0

    @contextmanager
    def place(self, held: Held) -> Iterator["LateAnswer | None"]:
        """Give what one message may wait with; None while as many wait as may."""
        if not self._take_place():
            yield None
            return
        try:
            yield LateAnswer(
                held,
                Database(self._database_url),
                until=monotonic() + self._longest_seconds,
                is_leaving=self._is_leaving,
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
        held: the message, with the lease that it has by now.

    """

    def __init__(
        self,
        held: Held,
        database: Database,
        *,
        until: float,
        is_leaving: Callable[[], bool],
        after_renewal: Callable[[], object],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep what each renewal needs; `until` is the end of the wait (monotonic)."""
        self.held = held
        self._database = database
        self._is_leaving = is_leaving
        self._after_renewal = after_renewal
        self._sleep = sleep
        self._until = until

    def extend(self) -> float | None:
        """Renew the lease, and return until when (monotonic) to wait now; None: give up.

        It is called when the time of the present lease for the answer is over. The last third of the lease is left: for
        the renewal, or for saying that there was none.
        """
        if self._until <= monotonic() or self._is_leaving():
            return None
        try:
            return self._renewed_until()
        finally:
            self._database.close()

    def _renewed_until(self) -> float | None:
        for pause in pauses():
            begun_at = monotonic()
            try:
                with self._database.transaction(lock_seconds=_LOCK_SECONDS) as connection:
                    is_ours = claims.renew_claim(connection, self.held.claim, self.held.lease.seconds)
            except psycopg.Error as exc:
                # Whether it was renewed is not known, so the lease that we know of counts.
                if self.held.lease.is_over() or self._is_leaving():
                    _log.warning("lease.not_renewed", message_id=self.held.claim.id, error=type(exc).__name__)
                    return None
                self._sleep(pause)
                continue
            if not is_ours:
                return None
            self.held = self.held.with_lease(self.held.lease.renewed(begun_at))
            self._after_renewal()
            _log.info("lease.renewed", message_id=self.held.claim.id, meaning="the mail server's answer is late")
            return min(self.held.lease.send_until, self._until)
        raise AssertionError  # pauses() never ends
