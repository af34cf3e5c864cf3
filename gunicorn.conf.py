"""gunicorn's configuration for the API: `gunicorn 'api:create_app()'` in the project's root reads this file.

Each worker builds the application after the fork and connects at its first request, so --preload is safe too.
"""

import atexit
import json
import logging
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - gunicorn and we make our own private files in it
_METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_OUR_FOLDERS: Final = "outbox-metrics-"


_EXIT_SETTINGS: Final = 2
"""The exit code for wrong settings, as in relay and worker: a supervisor may then wait longer for new ones."""


def _stop(problem: str) -> NoReturn:
    sys.stderr.write(f"{problem}\n")
    sys.exit(_EXIT_SETTINGS)


def _share_metrics() -> None:
    """Create the folder through which a scrape finds what all workers counted. It is deleted with this master.

    A master that gunicorn started to replace another one (SIGUSR2) inherits the folder's name and needs its own.
    """
    ours = f"{_OUR_FOLDERS}{os.getpid()}-"
    given = Path(os.environ.get(_METRICS_FOLDER, "")).name
    if given.startswith(ours) or (given and not given.startswith(_OUR_FOLDERS)):
        if not os.access(os.environ[_METRICS_FOLDER], os.R_OK | os.W_OK | os.X_OK):
            _stop(f"{_METRICS_FOLDER}: has to be a folder that this process may read and write.")
        return
    folder = tempfile.mkdtemp(prefix=ours, dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
    os.environ[_METRICS_FOLDER] = folder
    master = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == master else None)


_share_metrics()

import gunicorn.http.wsgi
import gunicorn.util
from gunicorn.glogging import Logger

from api.http.logs import WithoutQueryString
from api.http.problems import PROBLEM_TYPE, ProblemError, detail_of, members
from shared.errors import SettingsError
from shared.settings.api import read_api_settings, read_ops_token
from shared.settings.gunicorn import (
    check_server_settings,
    listen_addresses,
    read_keepalive_seconds,
    read_port,
    read_web_concurrency,
)
from shared.tracing.configuration import check_tracing

_STANDSTILL_SECONDS: Final = 10


class WithoutSlowClients(logging.Filter):
    """Drops gunicorn's stack traces about clients that are too slow."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is about anything else."""
        return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


class PathLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's logger without query strings: they contain the codes of links."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Remove them from the lines about malformed requests."""
        super().setup(cfg)
        self.error_log.filters = [WithoutQueryString(), WithoutSlowClients()]

    def atoms(self, *request: Any) -> dict[str, Any]:  # noqa: ANN401 - gunicorn has no types
        """Encode the path again: a line break in it would start a log line that the client invented."""
        atoms: dict[str, Any] = super().atoms(*request)
        atoms["U"] = quote(str(atoms["U"]), encoding="latin-1", errors="replace")
        return atoms


def _answer_with_a_problem(client: socket.socket, status: int, reason: str, _message: str) -> None:
    """Answer what never reaches the application in its format: gunicorn's own page quotes what the client sent."""
    body = json.dumps(members(ProblemError(status, detail_of(status)))) + "\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    gunicorn.util.write_nonblock(client, (head + body).encode("ascii"))


def when_ready(server: Any) -> None:  # noqa: ANN401 - gunicorn has no types
    """Limit how long a client that stops in the middle of a request or response can hold a thread.

    gunicorn waits without a limit after the first byte. Sockets inherit these options from the one that accepts them
    (socket(7), Linux). One byte every few seconds still holds a thread: put a buffering proxy in front against that.
    """
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STANDSTILL_SECONDS, 0))


def _hold_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _let_sigterm_end_a_worker() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


# Until gunicorn sets up a worker's signals, the worker has a copy of the master's handler. That swallows a SIGTERM, and
# the master waits for graceful_timeout: one in ten stops right after the start.
os.register_at_fork(before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_let_sigterm_end_a_worker)

try:
    check_server_settings()
    bind = listen_addresses(read_port())
    workers = read_web_concurrency()
    keepalive = read_keepalive_seconds()
    # The workers read them again. Here, a wrong one stops the start with one clear message.
    read_api_settings()
    check_tracing()
    read_ops_token()
except SettingsError as error:
    _stop(str(error))

worker_class = "api.gunicorn_worker.DrainingWorker"
threads = 4
# Everything that a request waits for has a limit of seconds. This one is for a worker that hangs.
timeout = 30
graceful_timeout = 20
# Each takes a file descriptor, of which a process has 1,024 by default. New ones replace idle ones.
worker_connections = 900
# With the heartbeat on a disk, a slow disk would look like a worker that hangs.
worker_tmp_dir = str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
# No control socket: this server is not managed through a socket in a home directory.
control_socket_disable = True

# TRUSTED_PROXIES alone decides which forwarding headers are believed. gunicorn itself would believe any process on this
# machine that a request came over TLS.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
# A client behind a proxy at a Unix socket, which gunicorn trusts, must not move the application to another path.
forwarder_headers = ""

accesslog = "-"
access_log_format = '%(t)s %(h)s "%(m)s %(U)s" %(s)s %(B)s %(M)sms'
logger_class = PathLogger

gunicorn.http.wsgi.SERVER = "outbox-signup"
gunicorn.util.write_error = _answer_with_a_problem
