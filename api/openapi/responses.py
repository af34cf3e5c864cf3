"""Responses of the OpenAPI document, each with an example."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from api.accounts.corrections import TAKEN as EMAIL_TAKEN
from api.accounts.corrections import TAKEN_FIELD
from api.accounts.corrections import VERIFIED as ALREADY_VERIFIED
from api.accounts.idempotency import IN_FLIGHT
from api.accounts.routes.responses import (
    AcceptedSchema,
    HealthSchema,
    ProblemSchema,
    SignupStateSchema,
    UserSchema,
    VerifiedSchema,
)
from api.accounts.routes.signup import SENT_AGAIN
from api.accounts.routes.verification import INCOMPLETE, PROOF_KIND, PROOF_REFUSED, PROOF_REQUIRED
from api.accounts.service import USERNAME_TAKEN
from api.accounts.signup_tokens.holders import NOT_KNOWN
from api.http.problems import NO_KIND, PROBLEM_TYPE, FieldError, ProblemError, invalid_fields, members
from api.http.request_ids import REQUEST_ID_HEADER

Part = dict[str, Any]

_USER: Final[Mapping[str, object]] = {
    "username": "ada",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "is_email_verified": False,
    "created_at": "2026-11-24T10:02:28.766573+00:00",
    "signup_token": "YWRh.yZ8Qm4Wb0mS7V0Yx0cJt2mJw3m9n4vQmJqP8a1bC2dE",
}
_INVALID_USERNAME: Final = FieldError("username", "Use only lowercase letters a-z, digits and underscores.")
_INVALID_EMAIL: Final = FieldError("email", "Enter an email address like name@example.com, without spaces or quotes.")
_MISSING: Final = FieldError("secret_code", "Required: copy it from the link.", in_body=False)
_TAKEN: Final = FieldError("username", USERNAME_TAKEN)

HEADERS: Final[Mapping[str, Part]] = {
    REQUEST_ID_HEADER: {
        "description": "The request's id: the client's own if it sent a usable one. Log lines contain it.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "The limit that this request counts towards: `q` requests in `w` seconds. Absent where no limit"
        " applies.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "What is left of it: `r` requests in the next `t` seconds.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "string"}},
}
"""Headers that responses share, by name."""

SIGNUP_TOKEN: Final[Part] = {
    "type": "http",
    "scheme": "bearer",
    "description": "The `signup_token` of the account.",
}
"""The security scheme of the signup token."""

_LIMITED: Final = (REQUEST_ID_HEADER, "RateLimit-Policy", "RateLimit")


def created() -> Part:
    """Return the response to a signup."""
    return _json("The user and the message that requests the email are committed.", UserSchema, _USER)


def resumed() -> Part:
    """Return the response to a signup with the password of an existing unverified account."""
    return _json("Your existing unverified account. Nothing was written.", UserSchema, _USER)


def signup_state() -> Part:
    """Return the response with the state of a signup."""
    state = {"username": "ada", "email": "ada@example.com", "is_email_verified": False, "mail": {"state": "pending"}}
    return _json("The account of the token and its email.", SignupStateSchema, state)


def unknown_token() -> Part:
    """Return the error for a missing or unknown token."""
    return problem(401, "The token is missing, or belongs to no account.", NOT_KNOWN)


def not_corrected() -> Part:
    """Return the error for an address that may not be changed."""
    description = "A verified account has the address, or the account itself is verified."
    error = FieldError("email", TAKEN_FIELD)
    return problem(409, description, EMAIL_TAKEN, [error], or_else=ALREADY_VERIFIED)


def verified() -> Part:
    """Return the response to a link that has verified its address."""
    return _json(
        "The email address is verified, by this request or an earlier one.", VerifiedSchema, {"is_verified": True}
    )


def shown() -> Part:
    """Return the response to a GET of a valid link."""
    return _json("The link is valid. Says whether its address is verified.", VerifiedSchema, {"is_verified": False})


def accepted() -> Part:
    """Return the response to a resend."""
    return _json("The same response for every address.", AcceptedSchema, {"detail": SENT_AGAIN})


def health(status: str, description: str) -> Part:
    """Return the response of a healthy service."""
    return _json(description, HealthSchema, {"status": status})


def taken() -> Part:
    """Return the error for a taken username or address, or a key in use."""
    description = "The username, the address or both are taken, or a request with the same key is still in progress."
    return problem(409, description, "Already taken: username.", [_TAKEN], or_else=IN_FLIGHT)


def not_json(*, or_else: str = "") -> Part:
    """Return the error for a body that cannot be parsed."""
    detail = "The body is not valid JSON at line 1, column 1. Send one JSON object."
    return problem(400, "The body cannot be parsed.", detail, or_else=or_else)


def unsupported(detail: str) -> Part:
    """Return the error for a body of another content type."""
    return problem(415, "The content type is not supported.", detail)


def invalid_body() -> Part:
    """Return the error for a body with an invalid address."""
    return _invalid(_INVALID_EMAIL)


def invalid_signup(*, or_else: str) -> Part:
    """Return the error for a signup with invalid fields."""
    return _invalid(_INVALID_USERNAME, or_else=or_else)


def proof_required() -> Part:
    """Return the error that asks which account is the client's."""
    return problem(
        403, "Several unverified accounts have the address.", PROOF_REQUIRED, or_else=PROOF_REFUSED, kind=PROOF_KIND
    )


def incomplete_link() -> Part:
    """Return the error for a link without one of its parameters."""
    return problem(422, "A parameter is missing.", INCOMPLETE, [_MISSING])


def problem(
    status: int,
    description: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    *,
    or_else: str = "",
    kind: str = NO_KIND,
) -> Part:
    """Return an error response with examples in the form that `api.http.problems` writes.

    Args:
        status: the status.
        description: when the client gets it.
        detail: the example's detail.
        errors: the example's fields.
        or_else: the detail of a second example.
        kind: the examples' type.

    """
    waits = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    examples = [members(ProblemError(status, detail, errors=errors, kind=kind))]
    if or_else:
        examples.append(members(ProblemError(status, or_else, kind=kind)))
    return {
        "description": description,
        "headers": _headers([*_LIMITED, "Retry-After"] if waits else _LIMITED),
        "content": {PROBLEM_TYPE: {"schema": ProblemSchema, "examples": _named(examples)}},
    }


def _invalid(error: FieldError, *, or_else: str = "") -> Part:
    detail = invalid_fields([error]).detail
    return problem(422, "Fields are not valid. Lists all of them.", detail, [error], or_else=or_else)


def _json(description: str, schema: type[Any], example: Mapping[str, object]) -> Part:
    return {
        "description": description,
        "headers": _headers(_LIMITED),
        "content": {"application/json": {"schema": schema, "examples": _named([example])}},
    }


def _headers(names: Sequence[str]) -> Part:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _named(examples: Sequence[Mapping[str, object]]) -> Part:
    return {f"example{number}": {"value": dict(example)} for number, example in enumerate(examples, 1)}
