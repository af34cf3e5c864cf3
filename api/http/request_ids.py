"""Assign each request an id, for its response and log lines: the client's own if it is usable, else a new one."""

import re
import uuid
from typing import Final

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

REQUEST_ID_HEADER: Final = "X-Request-ID"

# UUIDs, ULIDs and the ids of proxies: characters that need no quotes in a log line or a header.
_USABLE: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def use_request_ids(app: Flask) -> None:
    """Assign every request an id, before other handlers run."""
    app.before_request(_begin)
    app.after_request(_return_id)


def _begin() -> None:
    given = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = given if _USABLE.fullmatch(given) else uuid.uuid4().hex
    # Threads are reused: remove the previous request's values.
    clear_contextvars()
    bind_contextvars(request_id=g.request_id)


def _return_id(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    return response
