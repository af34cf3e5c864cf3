"""The pool of connections to the mail server that the senders of a worker share."""

import contextlib
import smtplib
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from consumer.mail.connection import SmtpConnection
from consumer.mail.session import ServerUnavailableError
from consumer.model.lease import Lease

_log = structlog.get_logger(__name__)

_QUIT_SECONDS: Final = 1.0

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class NoPlaceError(Exception):
    """No connection became free in time: the server accepts no more of them."""


class ConnectionPool:
    """A pool that finds out how many connections the server accepts.

    A connection that is refused while others work lowers the limit to those. The limit rises by one a second while
    that works, and after each refusal the pause is twice as long. The server counts as unavailable if it refuses a
    connection and no other one is open.
    """

    def __init__(self, dial: Callable[[float], SmtpConnection], size: int, *, idle_seconds: float) -> None:
        """Open nothing yet.

        Args:
            dial: opens a connection before a deadline; raises ServerUnavailableError.
            size: how many connections may be open at once.
            idle_seconds: how long an unused connection is kept.

        """
        self._dial = dial
        self._size = size
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._idle: list[SmtpConnection] = []
        """The one used last is at the end and is taken first, so superfluous ones become idle."""
        self._limit = size
        self._taken = 0
        """Connections in use or being opened."""
        self._waiting: deque[object] = deque()
        """Served in order: a sender that has just sent a mail does not take the place again."""
        self._raise_at = 0.0
        self._pause = _FIRST_PAUSE_SECONDS / 2
        self._slowed_at = float("-inf")
        self._outages = 0
        self._last_outage: ServerUnavailableError | None = None
        self._latest_accepted = 0.0

    @property
    def limit(self) -> int:
        """Return how many connections may be open at present."""
        return self._limit

    def take(self, lease: Lease) -> SmtpConnection:
        """Return a connection for the caller alone: an open one, else a new one, else the first that becomes free.

        Raises:
            ServerUnavailableError: the server accepts no connection, and none is open.
            NoPlaceError: none became free before it was too late to begin with this mail.

        """
        if monotonic() >= lease.send_until:
            raise NoPlaceError
        with self._changed:
            if not self._waiting and self._idle and self._idle[-1].used_at > monotonic() - self._idle_seconds:
                self._taken += 1
                return self._idle.pop()
            outages = self._outages
        while True:
            connection = self._wait_for_place(lease, outages)
            if connection is None:
                connection = self._open_unless_others_work(lease)
            if connection is not None:
                return connection

    def renew(self, connection: SmtpConnection, lease: Lease) -> SmtpConnection:
        """Return a new connection in place of this one, or another one if the server has no place for a new one.

        Raises as `take` does.
        """
        connection.close()
        renewed = self._open_unless_others_work(lease)
        return self.take(lease) if renewed is None else renewed

    def give_back(self, connection: SmtpConnection, accepted_began_at: float | None = None) -> None:
        """Return a connection to the pool, or close it if it is not usable.

        Args:
            connection: the connection.
            accepted_began_at: when (monotonic) the mail was begun that the server accepted; None if it accepted none.

        """
        now = connection.used_at = monotonic()
        with self._changed:
            if accepted_began_at is not None:
                self._latest_accepted = max(self._latest_accepted, accepted_began_at)
                if connection.mails == 1 and self._limit < self._size:
                    self._pause = _FIRST_PAUSE_SECONDS
                    self._slowed_at = now
                    self._raise_at = now + self._pause
            self._taken -= 1
            is_kept = connection.is_usable and self._taken + len(self._idle) < self._limit
            if is_kept:
                self._idle.append(connection)
            if self._waiting:
                self._changed.notify_all()
        if not is_kept:
            _quit(connection)

    def discard(self, connection: SmtpConnection, *, lower: bool = False) -> None:
        """Close it at once. `lower` the limit if the server said that too many are open."""
        connection.close()
        with self._changed:
            self._taken -= 1
            if lower:
                self._lower(self._taken + len(self._idle))
            self._changed.notify_all()

    def has_others(self) -> bool:
        """Return whether there is a connection besides the caller's."""
        with self._changed:
            return self._taken + len(self._idle) > 1

    def accepted_since(self, moment: float) -> bool:
        """Return whether the server accepted a mail that was begun after this moment (monotonic)."""
        with self._changed:
            return self._latest_accepted > moment

    def close_idle(self, *, all_of_them: bool = False) -> None:
        """Close the connections that were idle for a while."""
        used_after = float("inf") if all_of_them else monotonic() - self._idle_seconds
        with self._changed:
            closing = [each for each in self._idle if each.used_at < used_after]
            self._idle = [each for each in self._idle if each.used_at >= used_after]
        for each in closing:
            _quit(each)

    def _wait_for_place(self, lease: Lease, outages: int) -> SmtpConnection | None:
        """Wait for an idle connection and return it, or None if a new one may be opened instead."""
        self.close_idle()
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while True:
                    if self._outages != outages and self._last_outage is not None:
                        # Another sender found out meanwhile; this one would only wait for the same result.
                        raise ServerUnavailableError(str(self._last_outage), is_busy=self._last_outage.is_busy)
                    if self._waiting[0] is turn and self._has_place():
                        self._taken += 1
                        return self._idle.pop() if self._idle else None
                    now = monotonic()
                    if now >= lease.begin_until:
                        raise NoPlaceError
                    is_raised_then = self._taken == self._limit < self._size and self._waiting[0] is turn
                    wake_at = min(lease.begin_until, self._raise_at) if is_raised_then else lease.begin_until
                    self._changed.wait(wake_at - now)
            finally:
                self._waiting.remove(turn)
                if self._waiting:
                    self._changed.notify_all()

    def _has_place(self) -> bool:
        """Return whether a connection is idle or may be opened. From time to time the limit rises by one."""
        now = monotonic()
        if not self._idle and self._taken == self._limit < self._size and now >= self._raise_at:
            self._limit += 1
            self._raise_at = now + self._pause
        return bool(self._idle) or self._taken < self._limit

    def _open_unless_others_work(self, lease: Lease) -> SmtpConnection | None:
        """Open a connection in a place that is counted already. Free the place and return None if there are others.

        Raises ServerUnavailableError if there are no others.
        """
        began_at = monotonic()
        try:
            return self._open(lease)
        except ServerUnavailableError as exc:
            if not self._others_work(exc, lease, began_at):
                raise
            return None

    def _open(self, lease: Lease) -> SmtpConnection:
        """Open a connection in a place that is counted already. An exception frees the place."""
        try:
            return self._dial(lease.send_until)
        except BaseException:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()
            raise

    def _others_work(self, refusal: ServerUnavailableError, lease: Lease, began_at: float) -> bool:
        """Return whether there are connections besides the one that was refused; the worker then uses only those.

        A connection that ran out of time because it was opened late says nothing about the server.
        """
        is_hasty = began_at > lease.begin_until and monotonic() >= lease.send_until
        with self._changed:
            others = self._taken + len(self._idle)
            if is_hasty:
                return others > 0
            if others:
                self._lower(others)
                return True
            self._outages += 1
            self._last_outage = refusal
            if not refusal.is_busy:
                self._limit = self._size
            self._changed.notify_all()
            return False

    def _lower(self, connections: int) -> None:
        now = monotonic()
        # Several refusals at the same time count as one.
        if now - self._slowed_at >= self._pause:
            self._slowed_at = now
            self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2)
            _log.info("smtp_connections.limited", connections=connections, of=self._size, seconds=self._pause)
        self._limit = max(1, min(connections, self._limit))
        self._raise_at = now + self._pause


def _quit(connection: SmtpConnection) -> None:
    """Send QUIT without waiting for the reply."""
    if connection.is_usable:
        connection.until = monotonic() + _QUIT_SECONDS
        with contextlib.suppress(OSError, smtplib.SMTPException):
            connection.putcmd("quit")
    connection.close()
