"""The OpenAPI 3.1 document: the marshmallow schemas say what a body holds, this module which answers there are."""

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
from api.accounts.routes.verification import EXPIRED, NOT_VALID, TAKEN
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
Sign up, verify the address with the link that was mailed to it, have the mail sent again.

Errors are RFC 9457 problems that name every invalid field at once.

Pages of other sites may call `/v1/*` where the operator names them (CORS), without cookies."""


def build_document(signup_schema: SignUpSchema) -> dict[str, Any]:
    """Build the document, with what a signup may hold."""
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
        "description": "Makes the user and asks for the verification mail, in one statement: both or neither. A client"
        " that repeats it with the username and the password of an account that is not verified yet gets that account.",
        "parameters": [_idempotency_key()],
        "requestBody": _body({"application/json": (signup_schema, _SIGNUP)}),
        "responses": {
            **_errors_of_bodies(),
            "200": responses.resumed(),
            "201": responses.created(),
            "400": responses.not_json(or_else=MALFORMED),
            "409": responses.taken(),
            "422": responses.invalid_body(or_else=USED),
        },
    }


def _idempotency_key() -> Part:
    return {
        "in": "header",
        "name": HEADER,
        "required": False,
        "description": "Names this request, so that it is carried out once however often it is sent: the same key and"
        f" body are told the first answer for {KEPT_HOURS} hours, another body is refused with 422, and a key that is"
        " in use with 409. It belongs to the client's network: a stranger may use the same.",
        "schema": {"type": "string", "pattern": f"^({KEY_PATTERN})$"},
        "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
    }


def _open_link() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "openLink",
        "summary": "See what a link is worth",
        "description": "Changes nothing, since mail scanners and previews open links: POST verifies. Who prefers"
        " `text/html` is shown a page with a button that does.",
        "parameters": [{"in": "query", "schema": LinkSchema}],
        "responses": {
            "414": responses.problem(414, "An address of more than 4 KiB.", detail_of(414)),
            **_answers_to_links(),
            "200": responses.shown(),
        },
    }


def _post_link() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "postLink",
        "summary": "Verify an address with the two parameters of its link",
        "description": "As JSON or as a form. An empty body is taken too, with the parameters in the query. Where"
        " several accounts wait for the address, the signup token of one of them, or its username and password, says"
        " which one is meant; any link of the address then serves.",
        "security": _TOKEN_OR_NOT,
        "requestBody": _body(
            {
                "application/json": (VerifySchema, _LINK),
                "application/x-www-form-urlencoded": (VerifyFormSchema, _LINK),
            }
        ),
        "responses": {**_errors_of_bodies(), **_answers_to_links(), "403": responses.proof_required()},
    }


def _send_again() -> Part:
    return {
        "tags": ["verification"],
        "operationId": "sendAgain",
        "summary": "Have the verification mail sent again",
        "description": "Answers alike and takes the same time whatever the address, so that nobody learns who has an"
        " account. Of several accounts that wait for the address it is that of the signup token, else that of the"
        " username, else the newest. An address is mailed at most once a minute and five times a day by this.",
        "security": _TOKEN_OR_NOT,
        "requestBody": _body({"application/json": (ResendSchema, {"email": "ada@example.com", "username": "ada"})}),
        "responses": {"202": responses.accepted(), **_errors_of_bodies()},
    }


def _show_signup() -> Part:
    return {
        "tags": ["users"],
        "operationId": "showSignup",
        "summary": "See what is known of a signup and its mail",
        "security": _TOKEN,
        "responses": {"200": responses.signup_state(), "401": responses.unknown_token(), **_errors_of_all()},
    }


def _correct() -> Part:
    return {
        "tags": ["users"],
        "operationId": "correctAddress",
        "summary": "Correct the address of an account that is not verified yet",
        "description": "A mail goes to the new address; those that wait for the old one are not sent any more. Five"
        " times a day.",
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
        "summary": "Whether the process lives",
        "responses": {"200": responses.health("ok", "It does.")},
    }


def _ready() -> Part:
    detail = "PostgreSQL refuses or does not answer: start it, or fix DATABASE_URL. The log says why."
    return {
        "tags": ["health"],
        "operationId": "ready",
        "summary": "Whether the service can take signups",
        "responses": {
            "200": responses.health("ready", "PostgreSQL would take a signup."),
            "503": responses.problem(
                503,
                "A signup would fail: PostgreSQL is away, takes no writes, or lacks a table, a column or a grant.",
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
        "404": responses.problem(404, "Unknown, altered, or no account has this address by now.", NOT_VALID),
        "410": responses.problem(
            410, "Past its life, ended by wrong passwords, or another account has the address.", EXPIRED, or_else=TAKEN
        ),
        "422": responses.incomplete_link(),
        **_errors_of_all(),
    }


def _errors_of_bodies() -> Part:
    return {
        "400": responses.not_json(),
        "408": responses.problem(408, "The body stood still on its way.", detail_of(408)),
        "413": responses.problem(413, "More than 16 KiB.", detail_of(413)),
        "415": responses.problem(415, "Another content type.", detail_of(415)),
        "422": responses.invalid_body(),
        **_errors_of_all(),
    }


def _errors_of_all() -> Part:
    return {
        "429": responses.problem(
            429, "Too many requests from one address.", "Too many requests from your address: try again in 42 s."
        ),
        "503": responses.problem(
            503, "PostgreSQL is away. What was asked for may have been committed: ask again.", detail_of(503)
        ),
    }
