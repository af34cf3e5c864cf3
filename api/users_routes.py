"""POST /v1/users."""

from datetime import UTC

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine

from api.bodies import read_object
from api.doorbell import Doorbell
from api.problems import FieldError, ProblemError
from api.schemas import SignUpSchema, load
from api.signup import SignedUp, Taken, sign_up

_log = structlog.get_logger(__name__)
_TAKEN = {
    "username": "Taken: choose another username.",
    "email": "Taken: an account with this address exists; use that one or another address.",
}


def users_blueprint(engine: Engine, doorbell: Doorbell, *, mail_delay_seconds: float) -> Blueprint:
    """Build the signup's address."""
    blueprint = Blueprint("users", __name__)
    schema = SignUpSchema()

    @blueprint.post("/v1/users")
    def create_user() -> ResponseReturnValue:
        outcome = sign_up(engine, load(schema, read_object(request)), mail_delay_seconds=mail_delay_seconds)
        if isinstance(outcome, Taken):
            _log.info("signup refused", taken=outcome.fields)
            errors = [FieldError(name, _TAKEN[name]) for name in outcome.fields]
            raise ProblemError(409, f"Taken already: {' and '.join(outcome.fields)}.", errors=errors)
        # Committed: from here on nothing may turn the answer into an error.
        doorbell.ring()
        _log.info("signed up", message_id=outcome.message_id)
        return _as_json(outcome), 201

    return blueprint


def _as_json(user: SignedUp) -> dict[str, object]:
    return {
        "username": user.username,
        "full_name": user.full_name,
        "email": user.email,
        "is_email_verified": user.is_email_verified,
        "created_at": user.created_at.astimezone(UTC).isoformat(),
    }
