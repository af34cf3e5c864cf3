"""The JSON routes of a signup: POST /v1/users, GET /v1/signup, POST /v1/signup/email, POST /v1/verify_email/resend."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Final

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts.corrections import CorrectionRequest
from api.accounts.idempotency import read_key
from api.accounts.resend import ResendRequest
from api.accounts.routes.responses import UserSchema
from api.accounts.routes.schemas import AddressSchema, ResendSchema, SignUpSchema, load
from api.accounts.service import AccountService
from api.accounts.signup_tokens.signing import read_token
from api.clients.forwarding import client_of
from api.http.bodies import read_object
from shared.links import VERIFY_PATH

SIGNUP_PATH: Final = "/v1/signup"
SENT_AGAIN: Final = "If an unverified account has this address, an email is on its way."


def signup_blueprint(accounts: AccountService, signup_schema: SignUpSchema) -> Blueprint:
    """Build the routes."""
    blueprint = Blueprint("signup", __name__)
    user_schema, address_schema, resend_schema = UserSchema(), AddressSchema(), ResendSchema()

    @blueprint.post("/v1/users")
    def create_user() -> ResponseReturnValue:
        body = read_object(request)
        key = read_key(request, body, accounts.secret_keys)
        user = accounts.sign_up(load(signup_schema, body), client_of(request).network, key)
        status = HTTPStatus.OK if user.message_id is None else HTTPStatus.CREATED
        return user_schema.dump({**asdict(user), "signup_token": accounts.signup_token(user)}), status

    @blueprint.get(SIGNUP_PATH)
    def show() -> ResponseReturnValue:
        return dict(accounts.signup_state(read_token(request)).as_json())

    @blueprint.post(f"{SIGNUP_PATH}/email")
    def correct_address() -> ResponseReturnValue:
        token = read_token(request)
        email = load(address_schema, read_object(request))["email"]
        correction = CorrectionRequest(token, email, client_of(request).network)
        return dict(accounts.correct_address(correction).as_json())

    @blueprint.post(f"{VERIFY_PATH}/resend")
    def send_again() -> ResponseReturnValue:
        token = read_token(request)
        body = load(resend_schema, read_object(request))
        accounts.send_again(ResendRequest(body["email"], client_of(request).network, body.get("username"), token))
        # The same response whether there is such an account or not.
        return {"detail": SENT_AGAIN}, HTTPStatus.ACCEPTED

    return blueprint
