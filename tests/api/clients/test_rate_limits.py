"""How often one client may send requests."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from limits.storage import MemoryStorage

from api.clients.rate_limits import LIMITED, RateLimiter
from tests.api.clients.steps import LIMITS, sign_up, statuses
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service

LINK = "/v1/verify_email?email_id=1&secret_code=x"


def test_request_past_the_limit_is_refused_with_the_time_to_wait(api: ApiService) -> None:
    responses = [sign_up(api) for _ in range(3)]

    assert [response.status_code for response in responses] == [422, 422, 429]
    assert responses[2].mimetype == "application/problem+json"
    assert 1 <= int(responses[2].headers["Retry-After"]) <= 60


def test_what_is_refused_is_timed_too(api: ApiService) -> None:
    for _ in range(3):
        sign_up(api)

    told = api.client().get("/metrics").text
    assert 'http_request_seconds_count{route="/v1/users"} 3.0' in told


def test_every_answer_says_how_much_is_left(api: ApiService) -> None:
    responses = [sign_up(api) for _ in range(3)]

    assert {response.headers["RateLimit-Policy"] for response in responses} == {'"signup";q=2;w=60'}
    assert [response.headers["RateLimit"].partition(";t=")[0] for response in responses] == [
        '"signup";r=1',
        '"signup";r=0',
        '"signup";r=0',
    ]


def test_window_ends(api: ApiService) -> None:
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False) as clock:
        before = statuses(api, *["203.0.113.9"] * 3)
        clock.move_to(now + timedelta(seconds=61))
        after = statuses(api, "203.0.113.9")

    assert (before, after) == ([422, 422, 429], [422])


@pytest.mark.parametrize(
    ("path", "body", "calls"),
    [
        ("/v1/verify_email/resend", {"json": {"email": "a@example.com"}}, 1),
        ("/inbox", {"data": {"email": "a@example.com"}}, 1),
        ("/", {"data": ALICE}, 2),
        (LINK, {}, 3),
    ],
)
def test_each_kind_of_request_has_its_own_limit(api: ApiService, path: str, body: dict[str, Any], calls: int) -> None:
    client = api.client()
    answers = [
        client.post(path, **body, headers=PAGE, environ_base={"REMOTE_ADDR": "203.0.113.9"}).status_code
        for _ in range(calls + 1)
    ]

    assert 429 not in answers[:calls]
    assert answers[calls] == 429


def test_every_limited_endpoint_exists(database_url: str) -> None:
    with api_service(database_url, ops_token="x" * 32) as service:
        assert set(LIMITED) <= set(service.app.view_functions)


def test_form_and_address_for_programs_share_a_limit(api: ApiService) -> None:
    statuses(api, "203.0.113.9", "203.0.113.9")

    response = api.client().post(
        "/", data={**ALICE, "password": "x"}, headers=PAGE, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )

    assert (response.status_code, response.mimetype) == (429, "text/html")
    assert "Too many requests" in response.text
    assert "Alice Adams" in response.text


def test_form_too_large_to_be_read_is_refused_like_any_other(api: ApiService) -> None:
    statuses(api, "203.0.113.9", "203.0.113.9")

    response = api.client().post(
        "/", data={"full_name": "x" * 100_000}, headers=PAGE, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )

    assert response.status_code == 429


@pytest.mark.parametrize("path", ["/", "/inbox", "/healthz", "/readyz", "/docs", "/openapi.json"])
def test_reading_is_not_limited(api: ApiService, path: str) -> None:
    responses = [api.client().get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"}) for _ in range(4)]

    assert {response.status_code for response in responses} == {200}
    assert "RateLimit" not in responses[0].headers


class FailingStorage(MemoryStorage):
    def incr(self, *_: object, **__: object) -> int:
        raise MemoryError


def test_limiter_that_fails_refuses_no_request(database_url: str) -> None:
    with api_service(database_url, rate_limiter=RateLimiter(LIMITS, FailingStorage)) as api:
        response = api.client().post("/v1/users", json=ALICE, environ_base={"REMOTE_ADDR": "203.0.113.9"})

    assert response.status_code == 201
    assert "RateLimit" not in response.headers


def test_a_clock_that_is_set_back_locks_no_client_out(api: ApiService) -> None:
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False) as clock:
        before = statuses(api, *["203.0.113.9"] * 3)
        clock.move_to(now - timedelta(hours=6))
        after = statuses(api, *["203.0.113.9"] * 3)

    assert (before, after) == ([422, 422, 429], [422, 422, 429])


def test_limits_count_no_more_than_there_are_requests_at_once(api: ApiService) -> None:
    start = threading.Barrier(6)
    answers: list[int] = []

    def ask() -> None:
        start.wait(timeout=10)
        answers.append(sign_up(api).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [422, 422, 429, 429, 429, 429]
