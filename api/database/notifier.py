"""Notify the relay after a commit, without making the request wait.

A NOTIFY inside the signup's transaction would take a lock that all committing transactions share, and halve the
signups per second. So a thread with a connection of its own sends it afterwards. No message depends on it: a
notification that is lost costs its message one poll interval of the relay.
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
from shared.doubling_pause import DoublingPause
from shared.outage_causes import postgresql_cause
from shared.outbox.messages import NOTIFY_CHANNEL

_SHORTEST_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE_SECONDS: Final = 0.032
"""Requests that arrive within one pause share one NOTIFY, and the pause grows while they keep arriving. The relay
empties the outbox at each NOTIFY: woken more often, it would take CPU time from the signups."""

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class Notifier:
    """Sends the notifications of one process. The first `notify` starts its thread."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._thread: _NotifierThread | None = None
        self._starting = threading.Lock()

    def notify(self) -> None:
        """Request a NOTIFY and return at once. Never raises."""
        thread = self._thread
        # A fork copies this object but not its thread.
        if thread is None or thread.pid != os.getpid():
            try:
                thread = self._start()
            except RuntimeError:
                _log.warning("notify.failed", reason="the system cannot start another thread")
                return
        thread.requested.set()

    def close(self) -> None:
        """Stop the thread and close its connection."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.pid == os.getpid():
            thread.close()

    def _start(self) -> "_NotifierThread":
        with self._starting:
            if self._thread is None or self._thread.pid != os.getpid():
                thread = _NotifierThread(self._database_url)
                thread.start()
                self._thread = thread
            return self._thread


class _NotifierThread(threading.Thread):
    """The thread that owns the connection and sends each NOTIFY."""

    def __init__(self, database_url: str) -> None:
        super().__init__(name="notifier", daemon=True)
        self.pid = os.getpid()
        self.requested = threading.Event()
        self._database_url = database_url
        self._connection: PromptConnection | None = None
        self._closing = False
        self._failures = 0
        self._backoff = DoublingPause(_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS)
        self._backoff_until = 0.0

    def run(self) -> None:
        """Send a NOTIFY for the requests so far, at most one per pause, until `close`."""
        pause = DoublingPause(_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        try:
            while True:
                self.requested.wait()
                self.requested.clear()
                if self._closing:
                    return
                self._try_to_notify()
                time.sleep(pause.next())
                if not self.requested.is_set():
                    pause.reset()
        finally:
            self._disconnect()

    def close(self) -> None:
        self._closing = True
        self.requested.set()
        self.join(_CLOSE_SECONDS)

    def _try_to_notify(self) -> None:
        if time.monotonic() < self._backoff_until:
            return
        try:
            self._notify()
        except Exception as exc:  # noqa: BLE001 - the thread has to outlive every failure
            self._disconnect()
            self._back_off(postgresql_cause(exc, self._database_url))
        else:
            if self._failures:
                _log.info("notify.recovered", failed_notifies=self._failures)
            self._failures = 0
            self._backoff.reset()

    def _notify(self) -> None:
        """Send the NOTIFY; on a new connection if the old one turns out to be dead.

        A transaction that only notifies waits for no fsync.
        """
        if self._connection is not None:
            try:
                self._connection.execute("SELECT pg_notify(%s, '')", [NOTIFY_CHANNEL])
            except psycopg.Error:
                self._disconnect()
            else:
                return
        self._connection = connect(self._database_url)
        self._connection.execute("SELECT pg_notify(%s, '')", [NOTIFY_CHANNEL])

    def _back_off(self, reason: str) -> None:
        """Drop the requests of the next moments; log it once per outage."""
        if not self._failures:
            _log.warning("notify.failed", reason=reason)
        self._backoff_until = time.monotonic() + self._backoff.next()
        self._failures += 1

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()
