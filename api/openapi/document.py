"""Build the OpenAPI 3.1 document: bodies come from the marshmallow schemas, responses from this package."""

from typing import Any, Final

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from api.accounts.idempotency import HEADER, KEPT_HOURS, KEY_PATTERN, MALFORMED, USED
from api.accounts.routes.schemas import (
    AddressSchema,
    LinkSchema,
    ResendSchema,
    SignUpSchema,
    VerifyFormSchema,
    VerifySchema,
)
from api.accounts.routes.signup import SIGNUP_PATH
from api.accounts.routes.verification import EXPIRED, NO_PARAMETERS, NOT_VALID, TAKEN
from api.http.bodies import NOT_JSON
from api.http.problems import detail_of
from api.openapi import responses
from api.openapi.responses import Part
from shared.links import VERIFY_PATH
from shared.version import VERSION

_SIGNUP: Final = {
    "username": "ada",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "password": "correct horse",
}
_LINK: Final = {"email_id": "1", "secret_code": "MDKTmUjthi0Ocl6bWIZ6r2ViDJ0lqX4pHVRZ6vU3wVU"}
_TOKEN: Final[list[Part]] = [{"signupToken": []}]
_TOKEN_OR_NOT: Final = [{}, *_TOKEN]
_DESCRIPTION: Final = """\
Sign up, verify the email address with the link that was sent to it, and send the email again.

Errors are RFC 9457 problems that list every invalid field at once.

Pages of other sites may call `/v1/*` if the operator has allowed their origin (CORS), without cookies."""


def build_document(signup_schema: SignUpSchema) -> dict[str, Any]:
    """Return the document.

    Args:
        signup_schema: the schema of a signup, with the configured password length.

    """
    spec = APISpec(
        title="Outbox signup service",
        version=VERSION,
        openapi_version="3.1.0",
        info={"description": _DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
        plugins=[MarshmallowPlugin(schema_name_resolver=_component_name)],
        tags=[{"name": "users"}, {"name": "verification"}, {"name": "health"}],
    )
    for name, header in responses.HEADERS.items():
        spec.components.header(name, header)
    spec.components.security_scheme("signupToken", responses.SIGNUP_TOKEN)
    spec.path("/v1/users", operations={"post": _sign_up(signup_schema)})
    spec.path(VERIFY_PATH, operations={"get": _open_link(), "post": _post_link()})
    spec.path(f"{VERIFY_PATH}/resend", operations={"post": _send_again()})
    spec.path(SIGNUP_PATH, operations={"get": _show_signup()})
    spec.path(f"{SIGNUP_PATH}/email", operations={"post": _correct()})
    spec.path("/healthz", operations={"get": _alive()})
    spec.path("/readyz", operations={"get": _ready()})
    document: dict[str, Any] = spec.to_dict()
    return document


def _component_name(schema: Any) -> str:  # noqa: ANN401 - a schema, its class or its name
    name = schema if isinstance(schema, str) else getattr(schema, "__name__", type(schema).__name__)
    return name.removesuffix("Schema")


def _sign_up(signup_schema: SignUpSchema) -> Part:
    return {
        "tags": ["users"],
        "operationId": "signUp",
        "summary": "Sign up",
        "description": "Creates the user and requests the verification email in one statement: both or neither. A"
        " client that sends the username and password of an existing unverified account gets that account.",
        "parameters": [_idempotency_key()],
        "requestBody": _body({"application/json": (signup_schema, _SIGNUP)}),
        "responses": {
            **_errors_of_bodies(),
            "200": responses.resumed(),
            "201": responses.created(),
            "400": responses.not_json(or_else=MALFORMED),
            "409": responses.taken(),
            "422": responses.invalid_signup(or_else=USED),
        },
    }


def _idempotency_key() -> Part:
    return {
        "in": "header",
        "name": HEADER,
        "required": False,
        "description": "Identifies this request, so that it runs once however often it is sent: the same key and body"
        f" get the first response for {KEPT_HOURS} hours, another body gets 422, a key that is in use gets 409. Keys"
        " belong to the client's network: a client elsewhere may use the same one.",
        "schema": {"type": "string", "pattern": f"^({KEY_PATTERN})$"},
        "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
    }


def _open_link() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "openLink",
        "summary": "Check a link",
        "description": "Changes nothing, because mail scanners and previews open links. POST verifies. A client that"
        " prefers `text/html` gets a page with a button that does.",
        "parameters": [{"in": "query", "schema": LinkSchema}],
        "responses": {
            "414": responses.problem(414, "The URL is longer than 4 KiB.", detail_of(414)),
            **_answers_to_links(),
            "200": responses.shown(),
        },
    }


def _post_link() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "postLink",
        "summary": "Verify an email address with the parameters of its link",
        "description": "As JSON or as a form, or with an empty body and the parameters in the query. Where several"
        " unverified accounts have the address, send the signup token of one of them, or its username and password, to"
        " show which one is yours. Any link to the address then works.",
        "security": _TOKEN_OR_NOT,
        "requestBody": _body(
            {
                "application/json": (VerifySchema, _LINK),
                "application/x-www-form-urlencoded": (VerifyFormSchema, _LINK),
            }
        ),
        "responses": {
            **_errors_of_bodies(),
            **_answers_to_links(),
            "403": responses.proof_required(),
            "415": responses.unsupported(NO_PARAMETERS),
        },
    }


def _send_again() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "sendAgain",
        "summary": "Send the verification email again",
        "description": "The response and its time are the same for every address, so they do not reveal who has an"
        " account. If several unverified accounts have the address, the email is for the one of the signup token, else"
        " of the username, else the newest. This sends at most one email a minute and five a day to an address.",
        "security": _TOKEN_OR_NOT,
        "requestBody": _body({"application/json": (ResendSchema, {"email": "ada@example.com", "username": "ada"})}),
        "responses": {"202": responses.accepted(), **_errors_of_bodies()},
    }


def _show_signup() -> Part:
    return {
        "tags": ["users"],
        "operationId": "showSignup",
        "summary": "Get the state of a signup and its email",
        "security": _TOKEN,
        "responses": {"200": responses.signup_state(), "401": responses.unknown_token(), **_errors_of_all()},
    }


def _correct() -> Part:
    return {
        "tags": ["users"],
        "operationId": "correctAddress",
        "summary": "Change the email address of an unverified account",
        "description": "Sends an email to the new address. Emails that still wait for the old address are not sent. At"
        " most five times a day.",
        "security": _TOKEN,
        "requestBody": _body({"application/json": (AddressSchema, {"email": "ada@example.com"})}),
        "responses": {
            **_errors_of_bodies(),
            "200": responses.signup_state(),
            "401": responses.unknown_token(),
            "409": responses.not_corrected(),
        },
    }


def _alive() -> Part:
    return {
        "tags": ["health"],
        "operationId": "alive",
        "summary": "Check that the process is running",
        "responses": {"200": responses.health("ok", "It is running.")},
    }


def _ready() -> Part:
    detail = "PostgreSQL is down or refuses connections. Start it, or fix DATABASE_URL. The log has the reason."
    return {
        "tags": ["health"],
        "operationId": "ready",
        "summary": "Check that the service accepts signups",
        "responses": {
            "200": responses.health("ready", "PostgreSQL would accept a signup."),
            "503": responses.problem(
                503,
                "A signup would fail: PostgreSQL is unreachable or read-only, or a table, column or grant is missing.",
                detail,
            ),
        },
    }


def _body(kinds: dict[str, tuple[Schema | type[Schema], dict[str, str]]]) -> Part:
    return {
        "required": True,
        "content": {
            kind: {"schema": schema, "examples": {"example1": {"value": example}}}
            for kind, (schema, example) in kinds.items()
        },
    }


def _answers_to_links() -> Part:
    return {
        "200": responses.verified(),
        "404": responses.problem(
            404, "The link is unknown or altered, or no account has this address any more.", NOT_VALID
        ),
        "410": responses.problem(
            410,
            "The link has expired, too many wrong passwords ended it, or another account has the address.",
            EXPIRED,
            or_else=TAKEN,
        ),
        "422": responses.incomplete_link(),
        **_errors_of_all(),
    }


def _errors_of_bodies() -> Part:
    return {
        "400": responses.not_json(),
        "408": responses.problem(408, "The body did not arrive in time.", detail_of(408)),
        "413": responses.problem(413, "The body is larger than 16 KiB.", detail_of(413)),
        "415": responses.unsupported(NOT_JSON),
        "422": responses.invalid_body(),
        **_errors_of_all(),
    }


def _errors_of_all() -> Part:
    return {
        "429": responses.problem(
            429, "Too many requests from one client.", "Too many requests from your address. Try again in 42 seconds."
        ),
        "503": responses.problem(
            503,
            "PostgreSQL is unreachable. The request may have been committed all the same: repeat it.",
            detail_of(503),
        ),
    }
