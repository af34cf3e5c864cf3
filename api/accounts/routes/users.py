"""POST /v1/users."""

from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts.idempotency import read_key
from api.accounts.routes.answers import UserSchema
from api.accounts.routes.schemas import SignUpSchema, load
from api.accounts.service import Accounts
from api.clients.networks import client_network
from api.http.bodies import read_object


def users_blueprint(accounts: Accounts, secret_keys: Sequence[str], wishes: SignUpSchema) -> Blueprint:
    """Build the signup's address."""
    blueprint = Blueprint("users", __name__)
    answer = UserSchema()

    @blueprint.post("/v1/users")
    def create_user() -> ResponseReturnValue:
        body = read_object(request)
        key = read_key(request, body, secret_keys)
        user = accounts.create(load(wishes, body), client_network(request.remote_addr), key)
        status = HTTPStatus.OK if user.message_id is None else HTTPStatus.CREATED
        return answer.dump({**asdict(user), "signup_token": accounts.token_of(user)}), status

    return blueprint
