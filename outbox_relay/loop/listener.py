"""The relay's LISTEN: a NOTIFY after a commit ends its sleep.

Every message is also found by polling. A lost notification, a broken connection, or a pooler that forwards no
notifications delays messages by one poll interval, and costs an occasional attempt to connect.
"""

import select
from collections.abc import Callable
from time import monotonic
from typing import Final

import psycopg
import structlog

from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import DbConnection, connect
from shared.doubling_pause import DoublingPause
from shared.outage_causes import postgresql_cause
from shared.outbox.messages import NOTIFY_CHANNEL

_log = structlog.get_logger(__name__)

_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 120.0
"""An address that drops packets costs three seconds of publishing at each attempt."""

_CHEAP_SECONDS: Final = 0.5
"""A server that is down refuses the connection at once: retrying it costs nothing."""

_DRAIN_SECONDS: Final = 1.0


class Listener:
    """Sleeps until a notification comes, the wakeup pipe is written to, or the time is over."""

    def __init__(
        self,
        listen_url: str,
        *,
        connect: Callable[[str, str], DbConnection] = connect,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Keep the address; `prepare` opens the connection.

        Args:
            listen_url: a direct connection to PostgreSQL, not through a pooler.
            connect: opens a connection by its URL and application name.
            clock: seconds that only grow.

        """
        self._listen_url = listen_url
        self._connect = connect
        self._clock = clock
        self._connection: DbConnection | None = None
        self._retry_at = 0.0
        self._retry_pause = DoublingPause(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._drain_at = 0.0
        self._outage_logged = False

    def prepare(self) -> None:
        """Connect and LISTEN, unless that is done or failed a moment ago."""
        if self._connection is not None:
            self._drain_regularly(self._connection)
            return
        began = self._clock()
        if began < self._retry_at:
            return
        try:
            self._connection = self._connect(self._listen_url, "outbox-relay-listener")
            self._connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
        except psycopg.Error as exc:
            self._lose(exc)
            if self._clock() - began < _CHEAP_SECONDS:
                self._retry_pause.reset()
        else:
            self._outage_logged = False
            self._retry_pause.reset()

    def sleep(self, seconds: float, wakeup: WakeupPipe) -> None:
        """Sleep for at most `seconds`."""
        sources: list[int] = [wakeup.reader]
        if self._connection is not None:
            sources.append(self._connection.fileno())
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if wakeup.reader in ready:
            wakeup.drain()
        if self._connection is not None and len(ready) > (wakeup.reader in ready):
            self._drain(self._connection)

    def _drain_regularly(self, connection: DbConnection) -> None:
        """Read what has arrived, for a relay that never sleeps.

        If nothing is read, PostgreSQL's process for this connection blocks, and with it the queue of notifications that
        all databases of the server share.
        """
        if self._clock() >= self._drain_at:
            self._drain_at = self._clock() + _DRAIN_SECONDS
            self._drain(connection)

    def _drain(self, connection: DbConnection) -> None:
        """Read all notifications that have arrived. They are all alike."""
        try:
            for _ in connection.notifies(timeout=0):
                pass
        except psycopg.Error as exc:
            self._lose(exc)
            self._retry_pause.reset()

    def _lose(self, exc: psycopg.Error) -> None:
        if not self._outage_logged:
            _log.warning(
                "listener.disconnected", error=postgresql_cause(exc, self._listen_url), meaning="the relay polls"
            )
            self._outage_logged = True
        self.close()
        self._retry_at = self._clock() + self._retry_pause.next()

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
