"""Read request bodies: JSON only, and never more than MAX_BODY_BYTES."""

import json
from typing import Any, Final, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from api.http.problems import FieldError, ProblemError

MAX_BODY_BYTES: Final = 16 * 1024

NOT_JSON: Final = "The body must be JSON. Send it with Content-Type: application/json."
"""A text for clients."""

READ_LIMIT_BYTES: Final = MAX_BODY_BYTES + 1
"""One byte more than we accept. werkzeug truncates a body without Content-Length at its limit, without an error, so the
extra byte has to come through to be noticed."""


def is_json(request: Request) -> bool:
    """Return whether the content type is JSON, with or without parameters."""
    kind = request.mimetype
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def read(request: Request) -> bytes:
    """Read the whole body and keep it for the form parsers. Raises RequestEntityTooLarge."""
    data = request.get_data()
    if len(data) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return data


def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body. Raises ProblemError, or an HTTPException that becomes one."""
    if not is_json(request):
        raise ProblemError(415, NOT_JSON)
    body = _parse(read(request))
    if not isinstance(body, dict):
        whole = FieldError("", 'Send a JSON object, such as {"name": "value"}.', is_whole_body=True)
        raise ProblemError(422, "The body must be a JSON object.", errors=[whole])
    return body


def _parse(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise ProblemError(400, "The body is not valid UTF-8. Encode the JSON as UTF-8.") from None
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise ProblemError(400, f"The body is not valid JSON at {where}. Send one JSON object.") from None
    except ValueError:
        raise ProblemError(
            400, "The body contains a number that JSON does not allow, or one that is too long."
        ) from None
    except RecursionError:
        raise ProblemError(400, "The body is nested too deeply. Send one flat JSON object.") from None


def _refuse(_constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts although JSON does not have them."""
    raise ValueError
