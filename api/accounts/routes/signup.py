"""GET /v1/signup and POST /v1/signup/email: what somebody may do who holds an account's signup token."""

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts.corrections import Correction
from api.accounts.routes.schemas import AddressSchema, load
from api.accounts.service import Accounts
from api.accounts.signup_tokens import read_token
from api.clients.networks import client_network
from api.http.bodies import read_object

SIGNUP_PATH = "/v1/signup"


def signup_blueprint(accounts: Accounts) -> Blueprint:
    """Build the addresses."""
    blueprint = Blueprint("signup", __name__)
    schema = AddressSchema()

    @blueprint.get(SIGNUP_PATH)
    def show() -> ResponseReturnValue:
        return dict(accounts.state(read_token(request)).as_json())

    @blueprint.post(f"{SIGNUP_PATH}/email")
    def correct() -> ResponseReturnValue:
        token = read_token(request)
        email = load(schema, read_object(request))["email"]
        wish = Correction(token, email, client_network(request.remote_addr))
        return dict(accounts.correct(wish).as_json())

    return blueprint
