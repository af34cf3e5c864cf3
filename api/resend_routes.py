"""POST /v1/verify_email/resend."""

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine

from api.bodies import read_object
from api.doorbell import Doorbell
from api.resend import send_again
from api.schemas import ResendSchema, load
from shared.links import VERIFY_PATH

_log = structlog.get_logger(__name__)


def resend_blueprint(engine: Engine, doorbell: Doorbell) -> Blueprint:
    """Build the address that sends the verification mail again."""
    blueprint = Blueprint("resend", __name__)
    schema = ResendSchema()

    @blueprint.post(f"{VERIFY_PATH}/resend")
    def ask_again() -> ResponseReturnValue:
        message_id = send_again(engine, load(schema, read_object(request))["email"])
        # Rung and answered alike whether there is such an account or not.
        doorbell.ring()
        _log.info("verification mail asked for", message_id=message_id)
        return {"detail": "If an account with this address waits for its verification, a mail is on its way."}, 202

    return blueprint
