"""POST /v1/verify_email/resend."""

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from api.accounts.resend import Asked
from api.accounts.routes.schemas import ResendSchema, load
from api.accounts.service import Accounts
from api.accounts.signup_tokens import read_token
from api.clients.networks import client_network
from api.http.bodies import read_object
from shared.links import VERIFY_PATH

SENT_AGAIN = "If an account with this address waits for its verification, a mail is on its way."


def resend_blueprint(accounts: Accounts) -> Blueprint:
    """Build the address that sends the verification mail again."""
    blueprint = Blueprint("resend", __name__)
    schema = ResendSchema()

    @blueprint.post(f"{VERIFY_PATH}/resend")
    def ask_again() -> ResponseReturnValue:
        token = read_token(request)
        body = load(schema, read_object(request))
        accounts.send_again(Asked(body["email"], client_network(request.remote_addr), body.get("username"), token))
        # The same whether there is such an account or not.
        return {"detail": SENT_AGAIN}, 202

    return blueprint
