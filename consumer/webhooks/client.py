"""The HTTP client of webhooks: one request over a connection of its own, within one deadline.

urllib3 writes the request and reads the answer. The connection is ours: it leads to the address that was checked. The
deadline covers everything from the look-up to the answer, and is held from outside: a timer shuts the socket down, so
that an endpoint that sends one byte a minute, or `100 Continue` for ever, ends nothing but its own answer.
"""

import http.client
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Final, Protocol

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from consumer.dialing import OutOfResourcesError, connected_to, look_up
from consumer.webhooks.addresses import AllowedAddresses
from shared.webhooks.urls import WebhookUrl

LARGEST_READ_BYTES: Final = 64 * 1024
"""How much of an answer's body is read, and thrown away, so that a receiver can write it to its end."""

_CONNECT_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 16 * 1024


class NoConnectionError(Exception):
    """Nothing that could be an event has reached the endpoint. The text is one of ours, and names no path."""


class NoAnswerError(Exception):
    """The request was written, and no answer followed. The text is one of ours."""


class TooLateError(Exception):
    """The look-up took so long that no request begins any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What counts of an answer.

    Attributes:
        status: the status code.
        retry_after: the value of that header, if there is one.

    """

    status: int
    retry_after: str | None = None


class WebhookTransport(Protocol):
    """Sends requests. Several threads may use it at once."""

    def post(
        self, url: WebhookUrl, body: bytes, headers: Mapping[str, str], *, begin_until: float, until: float
    ) -> Answer:
        """Send the body and return the answer."""
        ...


class WebhookClient:
    """Sends requests. It keeps no connection, no cookie, and reads no variable for proxies."""

    def __init__(self, allowed: AllowedAddresses) -> None:
        """Send to these addresses."""
        self._allowed = allowed
        # It warns of odd headers with the whole URL, which may contain a token.
        logging.getLogger("urllib3.connection").disabled = True

    def post(
        self, url: WebhookUrl, body: bytes, headers: Mapping[str, str], *, begin_until: float, until: float
    ) -> Answer:
        """Send the body and return the answer.

        Args:
            url: where to.
            body: the body.
            headers: the headers besides Host and Content-Length.
            begin_until: the moment (monotonic) after which no connection is opened.
            until: the moment (monotonic) at which everything ends.

        Raises:
            NoConnectionError: nothing was sent, or not all of it.
            NoAnswerError: it was sent, and no answer came that can be read.
            TooLateError: begin_until was over after the look-up.
            OutOfResourcesError: this process has no thread or socket left.

        """
        sock = self._connected(url, begin_until, until)
        with sock, _shut_down_at(sock, until) as is_overdue:
            return self._exchange(sock, url, body, headers, until, is_overdue)

    def _connected(self, url: WebhookUrl, begin_until: float, until: float) -> socket.socket:
        """Connect to an address of the URL's name that may be connected to, whatever it was at another time."""
        try:
            found = look_up(url.host, url.port, min(_CONNECT_SECONDS, until - monotonic()))
        except (OSError, UnicodeError) as exc:
            raise NoConnectionError(_look_up_failure(exc)) from None
        addresses = [each for each in found if self._may_connect(url, each[4][0])]
        if not addresses:
            hint = "" if url.scheme == "https" else "; http is for these networks alone"
            raise NoConnectionError(
                f"no connection: its name leads to no public address, nor to one of WEBHOOK_ALLOWED_NETWORKS{hint}"
            )
        if monotonic() >= begin_until:
            raise TooLateError
        try:
            sock = connected_to(addresses, _CONNECT_SECONDS, until)
        except OSError as exc:
            raise NoConnectionError(f"no connection: {_cause(exc)}") from None
        try:
            peer = sock.getpeername()[0]
        except OSError:
            peer = ""  # it has hung up already
        if not self._may_connect(url, peer):
            sock.close()
            raise NoConnectionError("no connection: it was closed, or led to another address")
        return sock

    def _may_connect(self, url: WebhookUrl, address: str) -> bool:
        return self._allowed.allow(address, is_encrypted=url.scheme == "https")

    def _exchange(
        self,
        sock: socket.socket,
        url: WebhookUrl,
        body: bytes,
        headers: Mapping[str, str],
        until: float,
        is_overdue: Callable[[], bool],
    ) -> Answer:
        connection = HTTPConnection(url.host, url.port, timeout=_seconds_to(until))
        # It never opens a connection itself, to an address that nobody has checked.
        connection.auto_open = 0
        stream, response = sock, None
        is_written = False
        try:
            stream = self._encrypted(sock, url.host, until) if url.scheme == "https" else sock
            connection.sock = stream
            connection.request(
                "POST",
                url.target,
                body=body,
                headers={"Host": url.host_header, **headers},
                preload_content=False,
                decode_content=False,
            )
            is_written = True
            stream.settimeout(_seconds_to(until))
            response = connection.getresponse()
            if is_overdue():
                # It was cut off, and http.client takes what there is for the whole head.
                raise TimeoutError
            _drain(response, stream)
            return Answer(response.status, response.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, HTTPError, ValueError) as exc:
            failure = TimeoutError() if is_overdue() else exc
            if not is_written:
                raise NoConnectionError(f"no connection: {_cause(failure)}") from None
            raise NoAnswerError(_answer_failure(failure)) from None
        finally:
            if response is not None:
                response.close()
            connection.close()
            stream.close()

    def _encrypted(self, sock: socket.socket, host: str, until: float) -> ssl.SSLSocket:
        """Start TLS. The certificate has to be for the name in the URL."""
        sock.settimeout(_seconds_to(until))
        return self._tls_context.wrap_socket(sock, server_hostname=host.rstrip("."))

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


@contextmanager
def _shut_down_at(sock: socket.socket, until: float) -> Iterator[Callable[[], bool]]:
    """Shut the connection down at this moment (monotonic), whatever reads from it or writes to it."""
    # TLS takes the socket's descriptor over; a copy of it names the same connection.
    try:
        copy = sock.dup()
    except OSError as exc:
        raise OutOfResourcesError("no file for the deadline") from exc
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        with suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_seconds_to(until), end)
    timer.daemon = True
    try:
        try:
            timer.start()
        except RuntimeError as exc:
            raise OutOfResourcesError("no thread for the deadline") from exc
        try:
            yield overdue.is_set
        finally:
            timer.cancel()
            timer.join()
    finally:
        copy.close()


def _drain(response: HTTPResponse, sock: socket.socket) -> None:
    """Read the body for a moment: a receiver that is cut off while it writes may take it for a failure."""
    until = monotonic() + _DRAIN_SECONDS
    left = LARGEST_READ_BYTES
    with suppress(OSError, http.client.HTTPException, HTTPError, ValueError):
        while left > 0 and monotonic() < until:
            sock.settimeout(_seconds_to(until))
            chunk = response.read1(min(left, _CHUNK_BYTES))
            if not chunk:
                return
            left -= len(chunk)


def _seconds_to(moment: float) -> float:
    return max(0.001, moment - monotonic())


def _look_up_failure(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, TimeoutError):
        return "no connection: the look-up of its name took too long"
    return "no connection: its name has no address"


def _cause(exc: Exception) -> str:
    """Return the cause in words of ours: an error's own text may contain the URL."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "its certificate is not valid for this name, or nobody whom we trust has issued it"
    if isinstance(exc, ssl.SSLError):
        return "TLS failed"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    return type(exc).__name__


def _answer_failure(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError):
        return "the connection was closed before an answer"
    return "the answer is no HTTP"
