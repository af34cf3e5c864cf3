"""Errors in the format of RFC 9457: every error response is application/problem+json, Flask's own included."""

import json
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import structlog
from flask import Response
from werkzeug.exceptions import HTTPException

from api.database.engine import DatabaseUnavailableError
from shared.errors import OutboxError
from shared.outage_causes import postgresql_reason

RETRY_AFTER_SECONDS: Final = "5"

NO_KIND: Final = "about:blank"
"""The type of a problem that its status alone identifies."""

PROBLEM_TYPE: Final = "application/problem+json"
_DETAILS: Final[Mapping[int, str]] = {
    400: "The request could not be understood. Check its headers and its body.",
    404: "There is nothing at this address. Check the path.",
    405: "This address does not support this method. Use one that the Allow header lists.",
    408: "The body did not arrive in time. Send the request again.",
    413: "The body is larger than 16 KiB. Send a smaller one.",
    414: "The URL is too long. Send its parameters in the body.",
    415: "This address does not support this content type. Send application/json.",
    431: "The headers are too large. Send fewer or shorter ones.",
    500: "Something went wrong on our side, and we have logged it. Trying again may help.",
    503: "The database is not answering. Your request may have been saved all the same."
    " Try again in a moment: repeating it is safe.",
}
_FRAMES: Final = 12

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field, or with the whole body, and how to fix it. Never contains the value."""

    field: str
    detail: str
    in_body: bool = True
    is_whole_body: bool = False

    def as_json(self) -> dict[str, str]:
        """Return the entry for `errors`.

        A URL parameter gets no pointer, because pointers refer to the body.
        """
        if not self.in_body:
            return {"field": self.field, "detail": self.detail}
        pointer = "#" if self.is_whole_body else _pointer(self.field)
        return {"field": self.field, "pointer": pointer, "detail": self.detail}


class ProblemError(OutboxError):
    """An error response."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        kind: str = NO_KIND,
    ) -> None:
        """Create the error. A `kind` distinguishes problems of the same status."""
        self.kind = kind
        self.status = status
        self.title = HTTPStatus(status).phrase
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        super().__init__(detail)


def invalid_fields(errors: Iterable[FieldError]) -> ProblemError:
    """Return the error for a body with these invalid fields."""
    return ProblemError(422, "Some fields are not valid. See errors for each one.", errors=errors)


def problem_of(error: Exception) -> ProblemError:
    """Return the problem that the client gets for an error. Logs errors of our own."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, DatabaseUnavailableError):
        _log.warning("postgresql.unavailable", error=error.reason)
        return ProblemError(503, detail_of(503), headers={"Retry-After": RETRY_AFTER_SECONDS})
    if isinstance(error, HTTPException):
        return _problem_of_http(error)
    _log.error("request.failed", error=_chain(error), frames=_frames(error))
    return ProblemError(500, _DETAILS[500])


def members(problem: ProblemError) -> dict[str, Any]:
    """Return the members of the problem's JSON object."""
    named: dict[str, Any] = {
        "type": problem.kind,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        named["errors"] = [error.as_json() for error in problem.errors]
    return named


def respond(problem: ProblemError) -> Response:
    """Return the problem as a JSON response."""
    # ASCII only, because an unknown field's name may contain half a surrogate pair, which UTF-8 cannot encode.
    body = json.dumps(members(problem), ensure_ascii=True) + "\n"
    return Response(body, problem.status, problem.headers, mimetype=PROBLEM_TYPE)


def _problem_of_http(error: HTTPException) -> ProblemError:
    """Return a problem with the status and headers of werkzeug's error (Allow, Retry-After), without its HTML."""
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return ProblemError(status, detail_of(status), headers=headers)


def detail_of(status: int) -> str:
    """Return the default text for a status."""
    return _DETAILS.get(status, f"{HTTPStatus(status).phrase}.")


def _pointer(field: str) -> str:
    """Return the field's JSON Pointer as a URI fragment (RFC 6901, section 6)."""
    # The characters that a fragment may contain (RFC 3986, section 3.5). A name may contain half a surrogate pair,
    # which UTF-8 cannot encode.
    return "#/" + quote(field.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@", errors="replace")


def _chain(error: BaseException) -> list[str]:
    """Return the names of the error and its causes. Their texts are left out: they may contain what the client sent."""
    names: list[str] = []
    current: BaseException | None = error
    while current is not None and len(names) < _FRAMES:
        names.append(postgresql_reason(current))
        current = current.__cause__ or current.__context__
    return names


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
