"""GET and POST /v1/verify_email, and their pages.

Mail scanners, previews and prefetchers open links, whatever they accept. A GET therefore shows what the link is worth
and changes nothing; a POST verifies, such as the page's button sends.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine

from api.bodies import is_json, read, read_object
from api.doorbell import Doorbell
from api.pages import page, prefers_html, problem_page
from api.problems import FieldError, ProblemError, problem_of, respond
from api.schemas import VerifySchema, load
from api.verification import Link, LinkState, Verification, look_up, verify_email
from shared.links import VERIFY_PATH

INCOMPLETE: Final = "The link is not complete: open it as it stands in the mail."
NOT_VALID: Final = "This link is not valid: open the one in the newest mail as it stands there."
EXPIRED: Final = f"This link has expired: ask for a new one with POST {VERIFY_PATH}/resend."
"""What clients are told."""

_log = structlog.get_logger(__name__)
_FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
_PAGES = {404: "not_valid.html", 410: "expired.html", 422: "not_valid.html"}


class LinkExpiredError(ProblemError):
    """The link is past its life."""

    def __init__(self, address: str | None) -> None:
        """Keep the address that it was mailed to: the page asks for another mail to it."""
        self.address = address
        super().__init__(410, EXPIRED)


def verification_blueprint(engine: Engine, doorbell: Doorbell, secret_keys: Sequence[str]) -> Blueprint:
    """Build the addresses that verify."""
    blueprint = Blueprint("verification", __name__)

    def use(link: Link) -> ResponseReturnValue:
        verification = verify_email(engine, secret_keys, link)
        if verification.message_id is not None:
            doorbell.ring()
            _log.info("address verified", message_id=verification.message_id)
        return _answer(verification, link)

    @blueprint.get(VERIFY_PATH)
    def show() -> ResponseReturnValue:
        link = _link(request.args)
        return _answer(look_up(engine, secret_keys, link), link)

    @blueprint.post(VERIFY_PATH)
    def use_posted() -> ResponseReturnValue:
        return use(_posted_link())

    blueprint.register_error_handler(Exception, _answer_error)
    blueprint.after_request(_vary_by_accept)
    return blueprint


def _link(parameters: Mapping[str, str]) -> Link:
    """Take the two parameters. Raises ProblemError naming those that are missing or empty."""
    missing = [
        FieldError(name, "Missing: send it as the link has it.", in_body=False)
        for name in ("email_id", "secret_code")
        if not parameters.get(name)
    ]
    if missing:
        raise ProblemError(422, INCOMPLETE, errors=missing)
    return Link(parameters["email_id"], parameters["secret_code"])


def _posted_link() -> Link:
    if is_json(request):
        return _link(load(VerifySchema(), read_object(request)))
    body = read(request)
    if request.mimetype in _FORMS:
        return _link({**request.args, **request.form})
    if body:
        raise ProblemError(415, "The body has to be JSON or a form, or the parameters stand in the query.")
    return _link(request.args)


def _answer(verification: Verification, link: Link) -> Response:
    """Answer with what a link is worth. One that is OPEN still was only looked up."""
    state = verification.state
    if state is LinkState.NOT_VALID:
        raise ProblemError(404, NOT_VALID)
    if state is LinkState.EXPIRED:
        raise LinkExpiredError(verification.address)
    if not prefers_html(request):
        return jsonify(is_verified=state is LinkState.VERIFIED)
    return page("confirm.html", link=link) if state is LinkState.OPEN else page("verified.html")


def _answer_error(error: Exception) -> ResponseReturnValue:
    problem = problem_of(error)
    if not prefers_html(request):
        return respond(problem)
    return problem_page(_PAGES.get(problem.status, "problem.html"), problem, problem=problem)


def _vary_by_accept(response: Response) -> Response:
    response.vary.add("Accept")
    return response
