"""POST /v1/users."""

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts import Accounts
from api.answers import UserSchema
from api.bodies import read_object
from api.schemas import SignUpSchema, load


def users_blueprint(accounts: Accounts) -> Blueprint:
    """Build the signup's address."""
    blueprint = Blueprint("users", __name__)
    schema, answer = SignUpSchema(), UserSchema()

    @blueprint.post("/v1/users")
    def create_user() -> ResponseReturnValue:
        return answer.dump(accounts.create(load(schema, read_object(request)))), 201

    return blueprint
