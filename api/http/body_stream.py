"""Turn the server's exceptions while a body is read into client errors.

gunicorn parses chunks and trailers while the application reads, and raises exceptions that Flask does not know and
would answer with 500. All of them are about what the client sent or did not send.
"""

from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final

import structlog
from werkzeug.exceptions import BadRequest, HTTPException, RequestTimeout

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger(__name__)

_WAITED_TOO_LONG: Final = (BlockingIOError, TimeoutError)
"""What a read raises at a socket with a timeout: the first where the kernel enforces it (SO_RCVTIMEO)."""


class BodyStream:
    """The body of a request. After a failure each read fails at once, instead of waiting as long as the first."""

    def __init__(self, stream: IO[bytes], length: int | None) -> None:
        """Wrap the server's stream.

        Args:
            stream: the server's `wsgi.input`.
            length: the value of Content-Length; None without one.

        """
        self._stream = stream
        self._missing = length
        self._error: HTTPException | None = None

    def read(self, size: int = -1) -> bytes:
        """Read some bytes, none at the end. Raises BadRequest or RequestTimeout."""
        if self._error is not None:
            raise self._error
        try:
            data = self._stream.read(size)
        except Exception as exc:
            raise self._failed(exc) from exc
        if self._missing is not None:
            self._missing -= len(data)
            if not data and size and self._missing > 0:
                # gunicorn does not report it, and half a form may look like a whole one.
                raise self._failed(EOFError())
        return data

    def readline(self, size: int = -1) -> bytes:
        """Read one line."""
        line = bytearray()
        while len(line) != size and not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Read all remaining lines."""
        del hint  # PEP 3333 lets it be ignored
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the lines."""
        return iter(self.readline, b"")

    def _failed(self, cause: Exception) -> HTTPException:
        self._error = RequestTimeout() if isinstance(cause, _WAITED_TOO_LONG) else BadRequest()
        # Only the type: the text may contain what the client sent.
        _log.info("body.refused", error=type(cause).__name__)
        return self._error


class BodyGuard:
    """WSGI middleware that passes a BodyStream to the application."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle a request."""
        stream: Any = environ["wsgi.input"]
        environ["wsgi.input"] = BodyStream(stream, _length(environ.get("CONTENT_LENGTH", "")))
        return self._app(environ, start_response)


def _length(text: str) -> int | None:
    """Return the value of Content-Length; gunicorn has already refused anything but a number."""
    return int(text) if text.isascii() and text.isdecimal() else None
