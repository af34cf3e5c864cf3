"""For any body, the response is one of ours and reveals nothing about the code."""

from collections.abc import Iterator

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import close, create_app
from tests.api.test_app import SETTINGS

PATHS = ["/", "/inbox", "/v1/users", "/v1/verify_email", "/v1/verify_email/resend"]
KINDS = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/json",
    "application/problem+json; charset=utf-16",
    "text/plain",
    "",
]
FIELDS = ["username", "full_name", "email", "password", "email_id", "secret_code"]
BODIES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.tuples(st.sampled_from(FIELDS), st.text(max_size=30)), max_size=6).map(
        lambda pairs: "&".join(f"{name}={text}" for name, text in pairs).encode()
    ),
    st.text(max_size=60).map(
        lambda text: f'--x\r\nContent-Disposition: form-data; name="{text}"\r\n\r\n1\r\n--x--'.encode()
    ),
)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    """The API without PostgreSQL: every request that needs it gets 503."""
    app = create_app(SETTINGS)
    yield app
    close(app)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(PATHS), kind=st.sampled_from(KINDS), body=BODIES, html=st.booleans())
def test_no_body_is_too_much(app: Flask, path: str, kind: str, body: bytes, html: bool) -> None:  # noqa: FBT001
    accept = {"Accept": "text/html" if html else "application/json"}

    response = app.test_client().post(path, data=body, content_type=kind, headers=accept)

    assert response.status_code in {400, 404, 413, 415, 422, 503}
    assert "Traceback" not in response.text
