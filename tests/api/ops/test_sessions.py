"""Sessions of the console: their cookies, and their ends on the server."""

from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from tests.api.ops.steps import TOKEN, cookie_of, dead, form_key, status_of, submit, with_cookie
from tests.programs.api_service import ApiService, api_service


def test_the_session_s_cookie_holds_no_token_and_is_for_this_site_alone(service: ApiService) -> None:
    cookie = service.client().post("/ops/login", data={"token": TOKEN}, base_url="https://example.com").headers
    parts = set(cookie["Set-Cookie"].split("; "))

    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/ops"} <= parts
    assert TOKEN not in cookie["Set-Cookie"]


def test_a_session_ends_with_the_token_it_was_opened_with(database_url: str, operator: FlaskClient) -> None:
    cookie = operator.get_cookie("outbox_ops", path="/ops")
    assert cookie is not None
    with api_service(database_url, ops_token=TOKEN[::-1]) as changed:
        client = changed.client()
        client.set_cookie("outbox_ops", cookie.value, path="/ops")

        assert client.get("/ops").status_code == 401


def test_after_signing_out_the_token_is_required_again(operator: FlaskClient) -> None:
    submit(operator, "/ops/logout")

    assert operator.get("/ops").status_code == 401


def test_signing_out_invalidates_the_cookie_and_no_other_session(service: ApiService, operator: FlaskClient) -> None:
    other = service.client()
    other.post("/ops/login", data={"token": TOKEN})
    kept = with_cookie(service, cookie_of(operator))
    key = form_key(kept)
    id_ = dead(service)

    submit(operator, "/ops/logout")

    assert kept.get("/ops").status_code == 401
    assert kept.post(f"/ops/dead-letters/{id_}/retry", data={"form_key": key}).status_code == 401
    assert (status_of(service, id_)[0], other.get("/ops").status_code) == ("dead", 200)


def test_session_holds_in_every_process_and_ends_in_every_process(
    service: ApiService, operator: FlaskClient, database_url: str
) -> None:
    with api_service(database_url, ops_token=TOKEN) as another:
        elsewhere = with_cookie(another, cookie_of(operator))
        assert elsewhere.get("/ops").status_code == 200

        submit(elsewhere, "/ops/logout")

    assert operator.get("/ops").status_code == 401


def test_session_ends_after_eight_hours_whatever_the_browser_says(service: ApiService, operator: FlaskClient) -> None:
    [row] = service.sql("SELECT ends_at - opened_at AS life FROM ops_sessions")
    assert row["life"] == timedelta(hours=8)

    service.sql("UPDATE ops_sessions SET opened_at = now() - interval '8 hours', ends_at = now()")

    assert operator.get("/ops").status_code == 401


def test_sessions_that_are_over_are_deleted_by_the_next_login(service: ApiService, operator: FlaskClient) -> None:
    service.sql("UPDATE ops_sessions SET opened_at = now() - interval '9 hours', ends_at = now() - interval '1 hour'")

    operator.post("/ops/login", data={"token": TOKEN})

    assert len(service.sql("SELECT 1 FROM ops_sessions")) == 1


@pytest.mark.parametrize("value", ["", "x", "x" * 3000, "\u00e9", "' OR true --"])
def test_invalid_cookie_opens_nothing(service: ApiService, value: str) -> None:
    assert with_cookie(service, value).get("/ops").status_code == 401


def test_what_is_kept_of_a_session_opens_nothing(service: ApiService, operator: FlaskClient) -> None:
    [row] = service.sql("SELECT secret_hmac FROM ops_sessions")
    cookie = cookie_of(operator)

    assert cookie.encode() not in row["secret_hmac"]
    assert with_cookie(service, row["secret_hmac"].hex()).get("/ops").status_code == 401
