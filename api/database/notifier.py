"""Waking the relay after a commit, without anybody waiting for it.

A NOTIFY inside the signup's transaction would take a lock that all committing transactions share and halve the
signups per second. So it is sent afterwards, by a thread and a connection of its own. Nothing depends on it: a ring
that is lost costs the message one poll interval of the relay.
"""

import contextlib
import os
import threading
import time
from typing import Final

import psycopg
import structlog

from api.database.engine import connect
from shared.database.prompt_connection import PromptConnection
from shared.outage_causes import postgresql_cause
from shared.outbox.messages import DOORBELL_CHANNEL

_SHORTEST_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE_SECONDS: Final = 0.032
"""Rings that come closer together than a pause are one, and while they do the pause grows: the relay empties the outbox
at each, and woken too often it would take the cores from those who sign up."""

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class Doorbell:
    """The bell of one process. Making one starts nothing; the first ring starts the thread that rings."""

    def __init__(self, database_url: str) -> None:
        """Keep where PostgreSQL is."""
        self._database_url = database_url
        self._ringer: _Ringer | None = None
        self._starting = threading.Lock()

    def ring(self) -> None:
        """Ask for a ring and return at once, whatever happens."""
        ringer = self._ringer
        # A fork copies the object and not its thread.
        if ringer is None or ringer.pid != os.getpid():
            try:
                ringer = self._start()
            except RuntimeError:
                _log.warning("notify.failed", reason="the system gives no thread for it")
                return
        ringer.rung.set()

    def close(self) -> None:
        """End the thread and its connection."""
        ringer, self._ringer = self._ringer, None
        if ringer is not None and ringer.pid == os.getpid():
            ringer.close()

    def _start(self) -> "_Ringer":
        with self._starting:
            if self._ringer is None or self._ringer.pid != os.getpid():
                ringer = _Ringer(self._database_url)
                ringer.start()
                self._ringer = ringer
            return self._ringer


class _Ringer(threading.Thread):
    """The thread that owns the connection."""

    def __init__(self, database_url: str) -> None:
        super().__init__(name="doorbell", daemon=True)
        self.pid = os.getpid()
        self.rung = threading.Event()
        self._database_url = database_url
        self._connection: PromptConnection | None = None
        self._closing = False
        self._failed_rings = 0
        self._quiet_until = 0.0

    def run(self) -> None:
        """Pass the rings on, at most one in each pause."""
        pause = _SHORTEST_PAUSE_SECONDS
        try:
            while True:
                self.rung.wait()
                self.rung.clear()
                if self._closing:
                    return
                self._pass_on()
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS) if self.rung.is_set() else _SHORTEST_PAUSE_SECONDS
        finally:
            self._hang_up()

    def close(self) -> None:
        self._closing = True
        self.rung.set()
        self.join(_CLOSE_SECONDS)

    def _pass_on(self) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._notify()
        except Exception as exc:  # noqa: BLE001 - the top of a thread that has to outlive every failure
            self._hang_up()
            self._keep_quiet(postgresql_cause(exc, self._database_url))
        else:
            if self._failed_rings:
                _log.info("notify.recovered", failed_notifies=self._failed_rings)
            self._failed_rings = 0

    def _notify(self) -> None:
        """Send the NOTIFY, on a new connection if the old one turns out to be dead.

        A transaction that only notifies waits for no fsync.
        """
        if self._connection is not None:
            try:
                self._connection.execute("SELECT pg_notify(%s, '')", [DOORBELL_CHANNEL])
            except psycopg.Error:
                self._hang_up()
            else:
                return
        self._connection = connect(self._database_url)
        self._connection.execute("SELECT pg_notify(%s, '')", [DOORBELL_CHANNEL])

    def _keep_quiet(self, reason: str) -> None:
        """Let the rings of the next moments pass unheard; said once per outage."""
        if not self._failed_rings:
            _log.warning("notify.failed", reason=reason)
        backoff = min(_FIRST_BACKOFF_SECONDS * 2 ** min(self._failed_rings, 10), _LONGEST_BACKOFF_SECONDS)
        self._quiet_until = time.monotonic() + backoff
        self._failed_rings += 1

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()
