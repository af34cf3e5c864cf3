"""Who gets into the console."""

import os

import pytest
from limits import parse
from werkzeug.test import TestResponse

from shared.errors import SettingsError
from shared.settings.api import read_ops_token
from shared.settings.rate_limits import RateLimits
from tests.api.ops.steps import TOKEN
from tests.programs.api_service import ApiService, api_service


def test_without_a_token_there_is_no_console(database_url: str) -> None:
    with api_service(database_url) as service:
        assert service.client().get("/ops").status_code == 404


@pytest.mark.parametrize("path", ["/ops", "/ops/snapshot", "/ops/dead-letters", "/ops/message?id=1"])
def test_without_a_session_the_token_is_required(service: ApiService, path: str) -> None:
    answer = service.client().get(path)

    assert (answer.status_code, "OPS_TOKEN" in answer.text, "pending" in answer.text) == (401, True, False)


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\u0661"])
def test_a_wrong_token_opens_nothing(service: ApiService, given: str) -> None:
    client = service.client()

    answer = client.post("/ops/login", data={"token": given})

    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)
    assert client.get("/ops").status_code == 401


def test_a_client_that_tries_tokens_is_refused_for_a_while_and_no_other_is(database_url: str) -> None:
    limits = RateLimits({"ops_login": parse("2 per minute")})
    with api_service(database_url, ops_token=TOKEN, rate_limits=limits) as service:
        *refused, over = [log_in(service, given, "203.0.113.9") for given in ("wrong", "x", TOKEN)]
        elsewhere = log_in(service, TOKEN, "203.0.113.10")

    assert [answer.status_code for answer in (*refused, over, elsewhere)] == [401, 401, 429, 303]
    assert ("Set-Cookie" in over.headers, over.mimetype, "Too many requests" in over.text) == (False, "text/html", True)
    assert 1 <= int(over.headers["Retry-After"]) <= 60


def log_in(service: ApiService, token: str, address: str) -> TestResponse:
    return service.client().post("/ops/login", data={"token": token}, environ_base={"REMOTE_ADDR": address})


def test_the_token_is_not_taken_from_an_address(service: ApiService) -> None:
    client = service.client()

    client.post(f"/ops/login?token={TOKEN}")

    assert client.get(f"/ops?token={TOKEN}").status_code == 401


def test_login_needs_the_database() -> None:
    with api_service("postgresql://nobody@127.0.0.1:1/none", ops_token=TOKEN) as away:
        answers = [away.client().post("/ops/login", data={"token": given}) for given in (TOKEN, "wrong")]

    assert [(answer.status_code, "Set-Cookie" in answer.headers) for answer in answers] == [(503, False), (401, False)]


@pytest.mark.parametrize("token", ["short", os.fsdecode(b"\xff" * 32), f"{'k' * 31}\n"])
def test_a_token_that_cannot_be_one_stops_the_start_by_its_name(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("OPS_TOKEN", token)

    with pytest.raises(SettingsError, match="OPS_TOKEN: needs at least 32 printable characters"):
        read_ops_token()
