"""The console: access, contents and buttons."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from limits import parse
from werkzeug.test import TestResponse

from outbox_relay.loop.heartbeat import write_heartbeat
from shared.database.connections import connect, transaction
from shared.errors import SettingsError
from shared.settings.api import read_ops_token
from shared.settings.rate_limits import RateLimits
from tests.programs.api_service import ApiService, api_service
from tests.rows import add_message, history_rows_read, message

TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own


@pytest.fixture
def service(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, ops_token=TOKEN) as running:
        yield running


@pytest.fixture
def operator(service: ApiService) -> FlaskClient:
    """A signed-in operator."""
    client = service.client()
    assert client.post("/ops/login", data={"token": TOKEN}).status_code == 303
    return client


def form_key(client: FlaskClient) -> str:
    found = re.search(r'name="form_key" value="([^"]+)"', client.get("/ops").text)
    assert found is not None
    return found[1]


def hidden_fields(client: FlaskClient) -> dict[str, str]:
    """Return the hidden values of the page's current forms."""
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', client.get("/ops").text))


def submit(client: FlaskClient, path: str, **fields: str) -> TestResponse:
    return client.post(path, data={**hidden_fields(client), **fields})


def dead(service: ApiService, **columns: Any) -> int:
    with connect(service.database_url, "test") as connection:
        return add_message(connection, status="dead", **columns)


def status_of(service: ApiService, message_id: int) -> tuple[str, str | None]:
    with connect(service.database_url, "test") as connection:
        row = message(connection, message_id)
    return row["status"], row["last_error"]


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


# ---- sessions end on the server


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("outbox_ops", path="/ops")
    assert cookie is not None
    return cookie.value


def with_cookie(service: ApiService, value: str) -> FlaskClient:
    client = service.client()
    client.set_cookie("outbox_ops", value, path="/ops")
    return client


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


def test_login_needs_the_database() -> None:
    with api_service("postgresql://nobody@127.0.0.1:1/none", ops_token=TOKEN) as away:
        answers = [away.client().post("/ops/login", data={"token": given}) for given in (TOKEN, "wrong")]

    assert [(answer.status_code, "Set-Cookie" in answer.headers) for answer in answers] == [(503, False), (401, False)]


@pytest.mark.parametrize("key", ["", "forged"])
@pytest.mark.parametrize("action", ["retry", "discard"])
def test_a_form_of_another_site_changes_nothing(
    service: ApiService, operator: FlaskClient, action: str, key: str
) -> None:
    id_ = dead(service)

    answer = operator.post(f"/ops/dead-letters/{id_}/{action}", data={"reason": "x", "form_key": key})

    assert (answer.status_code, status_of(service, id_)[0]) == (403, "dead")


def test_the_form_of_another_session_changes_nothing(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    other = service.client()
    other.post("/ops/login", data={"token": TOKEN})

    answer = operator.post(f"/ops/dead-letters/{id_}/retry", data={"form_key": form_key(other)})

    assert (answer.status_code, status_of(service, id_)[0]) == (403, "dead")


def test_the_console_shows_what_is_where(service: ApiService, operator: FlaskClient) -> None:
    with connect(service.database_url, "test") as connection:
        for _ in range(3):
            add_message(connection)
        write_heartbeat(connection, "here/1")

    page = operator.get("/ops").text

    assert re.search(r"pending</span><b>3</b>\s*<div>0\.[0-9]+/s appended", page)
    assert "1 running" in page


def test_what_is_away_is_named(service: ApiService, operator: FlaskClient) -> None:
    service.sql("UPDATE outbox_breaker SET opened_at = now() - interval '5 min', probe_at = now()")

    page = operator.get("/ops/snapshot").text

    assert ("unreachable for 5 min" in page, ">none</span>" in page) == (True, True)


def test_a_dead_letter_is_retried(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)

    assert submit(operator, f"/ops/dead-letters/{id_}/retry").status_code == 303
    assert status_of(service, id_)[0] == "pending"


def test_a_dead_letter_is_discarded_with_its_reason(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)

    assert submit(operator, f"/ops/dead-letters/{id_}/discard", reason=" ").status_code == 422
    assert submit(operator, f"/ops/dead-letters/{id_}/discard", reason="the user left").status_code == 303
    assert status_of(service, id_) == ("discarded", "discarded: the user left")


def test_of_two_operators_the_second_gets_a_conflict(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    submit(operator, f"/ops/dead-letters/{id_}/retry")

    assert submit(operator, f"/ops/dead-letters/{id_}/retry").status_code == 409


@pytest.mark.parametrize(("action", "status"), [("retry", "pending"), ("discard", "discarded")])
def test_the_same_form_sent_twice_is_carried_out_once_and_is_no_conflict(
    service: ApiService, operator: FlaskClient, action: str, status: str
) -> None:
    id_, other_id = dead(service), dead(service)
    form = {**hidden_fields(operator), "reason": "the user left"}

    answers = [operator.post(f"/ops/dead-letters/{id_}/{action}", data=form).status_code for _ in range(2)]
    another = operator.post(f"/ops/dead-letters/{other_id}/{action}", data=form).status_code
    of_somebody_else = submit(operator, f"/ops/dead-letters/{id_}/{action}", reason="x").status_code

    assert (answers, another, of_somebody_else) == ([303, 303], 303, 409)
    assert [status_of(service, each)[0] for each in (id_, other_id)] == [status] * 2


def test_a_form_whose_number_no_row_could_hold_is_carried_out(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    form = {**hidden_fields(operator), "form_id": "\0"}

    answers = [operator.post(f"/ops/dead-letters/{id_}/retry", data=form).status_code for _ in range(2)]

    assert answers == [303, 303]
    assert status_of(service, id_)[0] == "pending"


def test_the_same_form_sent_twice_at_once_is_no_conflict(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    form = hidden_fields(operator)
    clients = [with_cookie(service, cookie_of(operator)) for _ in range(2)]

    with ThreadPoolExecutor(2) as threads:
        with connect(service.database_url, "test") as other, transaction(other):
            other.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [id_])
            sent = [threads.submit(client.post, f"/ops/dead-letters/{id_}/retry", data=form) for client in clients]
            service.wait_for_a_lock(statements=2)
        statuses = [each.result(timeout=10).status_code for each in sent]

    assert (statuses, status_of(service, id_)[0]) == ([303, 303], "pending")


def test_a_dead_letter_is_listed_with_its_attempts(service: ApiService, operator: FlaskClient) -> None:
    dead(service, attempt=7, last_error="550 no such mailbox")

    page = operator.get("/ops/dead-letters").text

    assert re.search(r"<td>7</td>\s*<td>550 no such mailbox</td>", page)


def test_a_reason_is_shown_as_text(service: ApiService, operator: FlaskClient) -> None:
    dead(service, last_error="550 <script>alert(1)</script>")

    assert "550 &lt;script&gt;" in operator.get("/ops/dead-letters").text


def test_a_message_s_life_is_shown(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service, last_error="550 no such mailbox")

    page = operator.get(f"/ops/message?id={id_}").text

    assert [part in page for part in ("created_at", "550 no such mailbox", "dead")] == [True] * 3
    assert [operator.get(f"/ops/message?id={wrong}").status_code for wrong in ("99", "x", "", "9" * 40)] == [404] * 4


def test_a_page_may_run_only_its_own_script_and_is_never_framed(operator: FlaskClient) -> None:
    answer = operator.get("/ops")
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)

    assert nonce is not None
    assert f'<script nonce="{nonce[1]}">' in answer.text
    assert "unsafe" not in policy
    assert ["frame-ancestors 'none'" in policy, answer.headers["Cache-Control"] == "no-store"] == [True, True]


@pytest.mark.parametrize("token", ["short", os.fsdecode(b"\xff" * 32), f"{'k' * 31}\n"])
def test_a_token_that_cannot_be_one_stops_the_start_by_its_name(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("OPS_TOKEN", token)

    with pytest.raises(SettingsError, match="OPS_TOKEN: needs at least 32 printable characters"):
        read_ops_token()


def test_a_snapshot_reads_little_of_a_long_history(service: ApiService, operator: FlaskClient) -> None:
    service.sql(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT n, 't', '{}', 'default', 'done', at, 0, 1, 10, '[]', at, at
          FROM generate_series(1, 60000) AS n, LATERAL (SELECT now() - n * interval '5 seconds') AS t (at)
        """
    )
    service.sql("ANALYZE outbox_finished")
    before = rows_read(service)

    for _ in range(2):
        assert operator.get("/ops/snapshot").status_code == 200

    assert rows_read(service) - before < 5000


def rows_read(service: ApiService) -> int:
    service.app.extensions["outbox-api"].engine.dispose()
    with connect(service.database_url, "test") as connection:
        return history_rows_read(connection)
