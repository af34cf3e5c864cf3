import io
import json

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.http.bodies import MAX_BODY_BYTES
from shared.settings.api import ApiSettings

# Nothing listens there: a request that needs the database gets 503.
DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
ALICE = {"username": "alice", "full_name": "Alice Adams", "email": "alice@example.com", "password": "correct horse"}


@pytest.fixture
def client() -> FlaskClient:
    return create_app(ApiSettings(DATABASE_URL, ("x" * 32,), 0.0, 0)).test_client()


def post(client: FlaskClient, body: bytes, content_type: str | None = "application/json") -> TestResponse:
    return client.post("/v1/users", data=body, content_type=content_type)


def post_chunked(client: FlaskClient, body: bytes) -> TestResponse:
    return client.post(
        "/v1/users",
        input_stream=io.BytesIO(body),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )


def padded(size: int) -> bytes:
    return json.dumps({"username": 1}).encode().ljust(size)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"username=alice",
        b'{"username": "alice",}',
        b"{'username': 'alice'}",
        b'{"username": "\xff\xfe"}',
        '{"username": "alice"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"username": "alice"}',
        b'{"username": NaN}',
        b'{"username": -Infinity}',
        b'{"username": 1' + b"0" * 5000 + b"}",
        b"[" * 16_000,
        b'{"a":' * 3_000,
        b'{"username": "\x00"}',
        b'{"username": "alice"} {"username": "bob"}',
    ],
)
def test_what_is_not_json_is_a_bad_request(client: FlaskClient, body: bytes) -> None:
    response = post(client, body)

    assert (response.status_code, response.mimetype) == (400, "application/problem+json")


@pytest.mark.parametrize("body", [b"[]", b'["username"]', b'"alice"', b"1", b"true", b"null"])
def test_json_that_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    response = post(client, body)

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["#"]


def test_lone_surrogate_in_the_name_of_a_field_is_answered(client: FlaskClient) -> None:
    response = post(client, rb'{"\ud800": 1}')

    assert response.status_code == 422
    assert response.get_json()["errors"][-1]["field"] == "\ud800"


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"],
)
def test_other_content_type_is_unsupported(client: FlaskClient, content_type: str | None) -> None:
    response = post(client, json.dumps(ALICE).encode(), content_type)

    assert (response.status_code, response.mimetype) == (415, "application/problem+json")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
)
def test_json_by_other_names_is_read(client: FlaskClient, content_type: str) -> None:
    assert post(client, b"{}", content_type).status_code == 422


def test_body_of_16_kib_is_read(client: FlaskClient) -> None:
    assert post(client, padded(MAX_BODY_BYTES)).status_code == 422


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, MAX_BODY_BYTES + 2, 1_000_000])
def test_larger_body_is_too_large(client: FlaskClient, size: int) -> None:
    response = post(client, padded(size))

    assert (response.status_code, response.mimetype) == (413, "application/problem+json")


def test_body_of_16_kib_without_a_length_is_read(client: FlaskClient) -> None:
    assert post_chunked(client, padded(MAX_BODY_BYTES)).status_code == 422


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, MAX_BODY_BYTES + 2, 1_000_000])
def test_larger_body_without_a_length_is_too_large(client: FlaskClient, size: int) -> None:
    assert post_chunked(client, padded(size)).status_code == 413


def test_larger_form_is_too_large(client: FlaskClient) -> None:
    response = client.post("/v1/verify_email", data={"email_id": "1", "secret_code": "x" * MAX_BODY_BYTES})

    assert response.status_code == 413
