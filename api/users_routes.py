"""POST /v1/users."""

from datetime import UTC

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts import Accounts
from api.bodies import read_object
from api.schemas import SignUpSchema, load
from api.signup import SignedUp


def users_blueprint(accounts: Accounts) -> Blueprint:
    """Build the signup's address."""
    blueprint = Blueprint("users", __name__)
    schema = SignUpSchema()

    @blueprint.post("/v1/users")
    def create_user() -> ResponseReturnValue:
        return _as_json(accounts.create(load(schema, read_object(request)))), 201

    return blueprint


def _as_json(user: SignedUp) -> dict[str, object]:
    return {
        "username": user.username,
        "full_name": user.full_name,
        "email": user.email,
        "is_email_verified": user.is_email_verified,
        "created_at": user.created_at.astimezone(UTC).isoformat(),
    }
