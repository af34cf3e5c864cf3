"""Listening for the doorbell: a NOTIFY that says there may be something to publish.

It only shortens a sleep. Every message is found by polling too, so that a lost ring, a connection that died or a pooler
that passes no notifications costs one poll interval and, now and then, the time of a try to connect.
"""

import os
import select
from time import monotonic
from typing import Any, Final

import psycopg
import structlog

from shared.database.connections import connect
from shared.outage_causes import postgresql_cause
from shared.outbox.messages import DOORBELL_CHANNEL

_log = structlog.get_logger(__name__)

_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 120.0
"""An address that swallows packets takes three seconds of publishing at each try."""

_CHEAP_SECONDS: Final = 0.5
"""A server that is down refuses at once."""

_DRAIN_SECONDS: Final = 1.0


class Alarm:
    """Wakes a sleeping relay from a signal handler: writing to a pipe is safe there, a lock would not be."""

    def __init__(self) -> None:
        """Open the pipe."""
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """End the present or the next sleep."""
        os.write(self._writer, b"!")

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until it rings; whoever rings at the door is not heard."""
        if select.select([self.reader], [], [], seconds)[0]:
            self.silence()

    def silence(self) -> None:
        """Take what has rung."""
        os.read(self.reader, 4096)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reader)
        os.close(self._writer)


class Doorbell:
    """Sleeps until somebody rings, an alarm goes off, or the time is over."""

    def __init__(self, listen_url: str) -> None:
        """Keep the address; the connection is opened at the first sleep."""
        self._listen_url = listen_url
        self._connection: psycopg.Connection[Any] | None = None
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._drain_at = 0.0
        self._outage_told = False

    def prepare(self) -> None:
        """Begin to listen, unless it is done or failed a moment ago. What is committed from now on rings."""
        if self._connection is not None:
            self._drain_now_and_then(self._connection)
            return
        began = monotonic()
        if began < self._retry_at:
            return
        try:
            self._connection = connect(self._listen_url, "outbox-relay-doorbell")
            self._connection.execute(f"LISTEN {DOORBELL_CHANNEL}")
        except psycopg.Error as exc:
            self._lose(exc)
            self._retry_seconds = self._next_pause(took=monotonic() - began)
        else:
            self._outage_told = False
            self._retry_seconds = _FIRST_RETRY_SECONDS

    def sleep(self, seconds: float, alarm: Alarm) -> None:
        """Sleep for `seconds` at the most."""
        sources: list[int] = [alarm.reader]
        if self._connection is not None:
            sources.append(self._connection.fileno())
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if alarm.reader in ready:
            alarm.silence()
        if self._connection is not None and len(ready) > (alarm.reader in ready):
            self._drain(self._connection)

    def _drain_now_and_then(self, connection: psycopg.Connection[Any]) -> None:
        """Read what has arrived, for a relay that never sleeps.

        Where nobody reads, PostgreSQL's process for this connection waits, and with it the queue of notifications that
        all databases of the server share.
        """
        if monotonic() >= self._drain_at:
            self._drain_at = monotonic() + _DRAIN_SECONDS
            self._drain(connection)

    def _drain(self, connection: psycopg.Connection[Any]) -> None:
        """Take all rings that have arrived: they all say the same."""
        try:
            for _ in connection.notifies(timeout=0):
                pass
        except psycopg.Error as exc:
            self._lose(exc)

    def _lose(self, exc: psycopg.Error) -> None:
        if not self._outage_told:
            _log.warning(
                "listener.disconnected", error=postgresql_cause(exc, self._listen_url), meaning="polling goes on alone"
            )
            self._outage_told = True
        self.close()
        self._retry_at = monotonic() + self._retry_seconds

    def _next_pause(self, *, took: float) -> float:
        """Give the pause after the next try that fails: longer and longer, unless a try costs nothing."""
        return _FIRST_RETRY_SECONDS if took < _CHEAP_SECONDS else min(_LONGEST_RETRY_SECONDS, self._retry_seconds * 2)

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
