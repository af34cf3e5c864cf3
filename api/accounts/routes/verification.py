"""GET and POST /v1/verify_email, as JSON and as pages.

Mail scanners, previews and prefetchers open links, whatever they accept. So a GET only shows the state of a link, and a
POST, such as the page's button sends, verifies.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine

from api.accounts.routes.schemas import VerifySchema, load
from api.accounts.signup_tokens.signing import read_token
from api.accounts.verification import Link, LinkResult, LinkState, Login, Proof, check_link, verify_email
from api.database.notifier import Notifier
from api.http.bodies import is_json, read, read_object
from api.http.pages import page, prefers_html, problem_page
from api.http.problems import NO_KIND, FieldError, ProblemError, problem_of, respond
from shared.links import VERIFY_PATH

INCOMPLETE: Final = "This link is incomplete. Open it exactly as it is in the email."
NO_PARAMETERS: Final = "Send JSON or a form, or put the parameters into the query."
NOT_VALID: Final = "This link is not valid. Open the one in the latest email."
EXPIRED: Final = f"This link has expired. Request a new one with POST {VERIFY_PATH}/resend."
TAKEN: Final = "Another account has this email address now. Use that account, or change the address of yours."
PROOF_REQUIRED: Final = (
    "Several accounts use this email address. Show which one is yours: send its signup token, or its username and"
    " password, with the link."
)
PROOF_REFUSED: Final = "This username and password don't match an account that uses this email address. Try again."
"""Texts for clients."""

SHOWN: Final = "account"
"""The form field with the username that the page shows."""

PROOF_KIND: Final = "proof-required"
"""The type of the problem that asks which account is the client's."""

_log = structlog.get_logger(__name__)
_FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
_PAGES = {404: "not_valid.html", 422: "not_valid.html"}


class LinkError(ProblemError):
    """An authentic link that does not verify, with what its page shows."""

    def __init__(
        self, status: int, detail: str, page: str, found: LinkResult, link: Link, kind: str | None = None
    ) -> None:
        """Create the error for a page template."""
        self.page = page
        self.address = found.address
        self.username = found.username
        self.link = link
        self.is_refused = found.is_refused
        super().__init__(status, detail, kind=kind or NO_KIND)


def verification_blueprint(engine: Engine, notifier: Notifier, secret_keys: Sequence[str]) -> Blueprint:
    """Build the routes."""
    blueprint = Blueprint("verification", __name__)

    def use(link: Link, proof: Proof) -> ResponseReturnValue:
        result = verify_email(engine, secret_keys, link, proof)
        if result.message_id is not None:
            notifier.notify()
            _log.info("user.verified", message_id=result.message_id)
        return _answer(result, link)

    @blueprint.get(VERIFY_PATH)
    def show() -> ResponseReturnValue:
        link = _link(request.args)
        found = check_link(engine, secret_keys, link, read_token(request))
        if found.state is LinkState.PROOF_REQUIRED:
            if not prefers_html(request):
                return _state(found)
            return page("proof.html", link=link, username=found.username, problem=None)
        return _answer(found, link)

    @blueprint.post(VERIFY_PATH)
    def use_posted() -> ResponseReturnValue:
        parameters = _posted()
        return use(_link(parameters), _proof(parameters))

    blueprint.register_error_handler(Exception, _answer_error)
    blueprint.after_request(_vary_by_accept)
    return blueprint


def _link(parameters: Mapping[str, str]) -> Link:
    """Return the link in the parameters. Raises ProblemError with those that are missing or empty."""
    missing = [
        FieldError(name, "Required: copy it from the link.", in_body=False)
        for name in ("email_id", "secret_code")
        if not parameters.get(name)
    ]
    if missing:
        raise ProblemError(422, INCOMPLETE, errors=missing)
    return Link(parameters["email_id"], parameters["secret_code"])


def _proof(parameters: Mapping[str, str]) -> Proof:
    """Return what shows which account is the client's. A username without a password only names it."""
    username, password = parameters.get("username", ""), parameters.get("password", "")
    login = Login(username, password) if password else None
    return Proof(read_token(request), login, parameters.get(SHOWN) or username or None)


def _posted() -> Mapping[str, str]:
    """Return the parameters. From the query only the link's: a password there would get into logs."""
    if is_json(request):
        parameters: Mapping[str, str] = load(VerifySchema(), read_object(request))
        return parameters
    body = read(request)
    link = {name: request.args[name] for name in ("email_id", "secret_code") if name in request.args}
    if request.mimetype in _FORMS:
        return {**link, **request.form}
    if body:
        raise ProblemError(415, NO_PARAMETERS)
    return link


def _answer(result: LinkResult, link: Link) -> Response:
    """Return the response for a link's state. An OPEN link was only read."""
    state = result.state
    if state is LinkState.NOT_VALID:
        raise ProblemError(404, NOT_VALID)
    if state is LinkState.EXPIRED:
        raise LinkError(410, EXPIRED, "expired.html", result, link)
    if state is LinkState.TAKEN:
        raise LinkError(410, TAKEN, "taken.html", result, link)
    if state is LinkState.PROOF_REQUIRED:
        detail = PROOF_REFUSED if result.is_refused else PROOF_REQUIRED
        raise LinkError(403, detail, "proof.html", result, link, kind=PROOF_KIND)
    if not prefers_html(request):
        return _state(result)
    if state is LinkState.VERIFIED:
        return page("verified.html")
    return page("verify.html", link=link, username=result.username)


def _state(result: LinkResult) -> Response:
    return jsonify(is_verified=result.state is LinkState.VERIFIED)


def _answer_error(error: Exception) -> ResponseReturnValue:
    problem = problem_of(error)
    if not prefers_html(request):
        return respond(problem)
    if isinstance(problem, LinkError):
        return problem_page(problem.page, problem, problem=problem, link=problem.link, username=problem.username)
    return problem_page(_PAGES.get(problem.status, "problem.html"), problem, problem=problem)


def _vary_by_accept(response: Response) -> Response:
    response.vary.add("Accept")
    return response
