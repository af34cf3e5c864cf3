"""The pages of a signup: `/` with the form, `/inbox` with "send it again", and `/address` to change the address."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from api.accounts.corrections import CorrectionRequest
from api.accounts.idempotency import FORM_FIELD, new_form_key, read_form_key
from api.accounts.resend import ResendRequest
from api.accounts.routes.schemas import AddressSchema, ResendSchema, SignUpSchema, load
from api.accounts.service import AccountService
from api.accounts.signup_tokens.signing import keep_token, read_token
from api.clients.forwarding import client_of
from api.http.bodies import read
from api.http.pages import page, problem_page
from api.http.problems import ProblemError, problem_of
from api.http.same_origin import refuse_foreign_forms

_FORM: Final = "application/x-www-form-urlencoded"
_COOKIE: Final = "inbox"
_COOKIE_SECONDS: Final = 3600
_TEMPLATES: Final = {"/inbox": "inbox.html", "/address": "address.html"}


def signup_pages(accounts: AccountService, signup_schema: SignUpSchema, *, mailbox_url: str | None) -> Blueprint:
    """Build the pages.

    Args:
        accounts: the use cases of the forms.
        signup_schema: the schema of the signup form.
        mailbox_url: where a development stack shows the mails that it has caught.

    """
    blueprint = Blueprint("pages", __name__)
    address_schema, correction_schema = ResendSchema(), AddressSchema()

    @blueprint.get("/")
    def show_form() -> Response:
        return page("sign_up.html", typed={}, errors={}, problem=None, idempotency_key=new_form_key())

    @blueprint.post("/")
    def sign_up() -> ResponseReturnValue:
        typed = _typed(signup_schema.fields)
        key = read_form_key(request, typed, accounts.secret_keys)
        signup = load(signup_schema, typed)
        user = accounts.sign_up(signup, client_of(request).network, key)
        # Signing up again with another address means that the person wants to change it.
        is_another = user.message_id is None and user.email.lower() != signup.email.lower()
        response = _to_inbox("address" if is_another else "inbox", signup.email)
        keep_token(response, request, accounts.signup_token(user), accounts.unverified_days * 2)
        return response

    @blueprint.get("/inbox")
    def show_inbox() -> Response:
        return page(
            "inbox.html",
            state=accounts.find_signup_state(read_token(request)),
            address=_remembered_address(address_schema),
            again="again" in request.args,
            mailbox_url=mailbox_url,
            typed={},
            errors={},
            problem=None,
        )

    @blueprint.get("/address")
    def show_correction() -> Response:
        state = accounts.find_signup_state(read_token(request))
        if state is not None and state.is_email_verified:
            return Response(status=303, headers={"Location": "inbox"})
        typed = {"email": _remembered_address(address_schema) or (state.email if state else "")}
        return page("address.html", state=state, typed=typed, errors={}, problem=None)

    @blueprint.post("/address")
    def correct_address() -> ResponseReturnValue:
        token = read_token(request)
        email = load(correction_schema, _typed(correction_schema.fields))["email"]
        accounts.correct_address(CorrectionRequest(token, email, client_of(request).network))
        return _to_inbox("inbox", email)

    @blueprint.post("/inbox")
    def send_again() -> ResponseReturnValue:
        token = read_token(request)
        typed = {name: value for name, value in _typed(address_schema.fields).items() if name == "email" or value}
        body = load(address_schema, typed)
        email = body["email"]
        accounts.send_again(ResendRequest(email, client_of(request).network, body.get("username"), token))
        return _to_inbox("inbox?again", email)

    blueprint.context_processor(lambda: {"shortest_password": signup_schema.shortest_password})
    blueprint.before_request(lambda: refuse_foreign_forms(request))
    blueprint.register_error_handler(Exception, _show_error)
    return blueprint


def _typed(names: Mapping[str, object]) -> dict[str, str]:
    """Return the form's fields of these names, without what a browser or an extension adds."""
    read(request)
    if request.mimetype != _FORM:
        raise ProblemError(415, f"The body must be a form. Send it with Content-Type: {_FORM}.")
    return {name: request.form.get(name, "") for name in names}


def _to_inbox(where: str, email: str) -> Response:
    """Redirect to the page about the mail, so that reloading it sends nothing again.

    A cookie passes the address to that page: a URL would put it into logs and histories.
    """
    response = Response(status=303, headers={"Location": where})
    response.set_cookie(
        _COOKIE, email, max_age=_COOKIE_SECONDS, httponly=True, secure=request.is_secure, samesite="Strict"
    )
    return response


def _remembered_address(schema: ResendSchema) -> str | None:
    """Return the address in the cookie if it is valid: clients may write anything into a cookie."""
    try:
        address: str = schema.load({"email": request.cookies.get(_COOKIE, "")})["email"]
    except ValidationError:
        return None
    return address


def _show_error(error: Exception) -> ResponseReturnValue:
    """Show the form again with what was typed, except the password, and with each error at its field."""
    problem = problem_of(error)
    template = _TEMPLATES.get(request.path, "sign_up.html")
    errors: dict[str, list[str]] = {}
    for each in problem.errors:
        errors.setdefault(each.field, []).append(each.detail)
    typed = _typed_before()
    # The request may have been committed although we failed: the same form has to be the same request.
    is_ours = problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR or problem.status == HTTPStatus.TOO_MANY_REQUESTS
    key = (is_ours and typed.get(FORM_FIELD)) or new_form_key()
    return problem_page(
        template,
        problem,
        state=None,
        address=None,
        typed=typed,
        errors=errors,
        problem=problem.detail,
        idempotency_key=key,
    )


def _typed_before() -> Mapping[str, str]:
    """Return the form's values; nothing if it is too large to read."""
    try:
        return request.form
    except HTTPException:
        return {}
