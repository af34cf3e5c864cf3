"""Steps of this folder's tests: a token, a link, a browser, and the outcome."""

from urllib.parse import parse_qsl

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.accounts.signup_tokens.signing import COOKIE, sign_token
from tests.programs.api_service import ALICE, KEY, ApiService

PATH = "/v1/verify_email"
MALLORY = {**ALICE, "username": "mallory", "full_name": "Mallory", "password": "what mallory chose"}
OWN = {"username": "alice", "password": ALICE["password"]}


def token(api: ApiService, username: str = "alice", *, key: str = KEY) -> str:
    [row] = api.sql("SELECT created_at FROM users WHERE username = %(name)s", {"name": username})
    return sign_token([key], username, row["created_at"])


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def link_for(api: ApiService, username: str) -> str:
    """Return a link that was mailed for this account."""
    [row] = api.sql("SELECT email FROM users WHERE username = %(name)s", {"name": username})
    return api.link(api.record(username), email=row["email"])


def browser(api: ApiService, username: str | None = None) -> FlaskClient:
    """Return a browser with the cookie of the person who signed up in it."""
    client = api.client()
    if username is not None:
        client.set_cookie(COOKIE, token(api, username))
    return client


def verified(api: ApiService) -> list[str]:
    return [row["username"] for row in api.sql("SELECT username FROM users WHERE is_email_verified ORDER BY 1")]


def kind(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["type"]


def parameters(link: str) -> dict[str, str]:
    return dict(parse_qsl(link.partition("?")[2]))
