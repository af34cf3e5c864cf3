"""How often one client may send requests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
import time_machine
from limits import parse
from limits.storage import MemoryStorage
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from api.clients.rate_limits import LIMITED, RateLimiter
from shared.settings.rate_limits import RateLimits
from tests.operations.scraping import samples
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service, limited_api

LIMITS = RateLimits({"signup": parse("2 per minute"), "verify": parse("3 per minute"), "resend": parse("1 per minute")})
LINK = "/v1/verify_email?email_id=1&secret_code=x"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, rate_limits=LIMITS) as service:
        yield service


def sign_up(api: ApiService, address: str = "203.0.113.9", **headers: str) -> TestResponse:
    return api.client().post("/v1/users", json={}, headers=headers, environ_base={"REMOTE_ADDR": address})


def statuses(api: ApiService, *addresses: str) -> list[int]:
    return [sign_up(api, address).status_code for address in addresses]


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


def test_each_address_has_its_own_limit(api: ApiService) -> None:
    assert statuses(api, *["203.0.113.9"] * 3, "203.0.113.10") == [422, 422, 429, 422]


def test_addresses_of_one_ipv6_network_share_a_limit(api: ApiService) -> None:
    assert statuses(api, "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1") == [422, 422, 429, 422]


def test_an_ipv4_address_in_ipv6_clothes_is_the_same(api: ApiService) -> None:
    assert statuses(api, "203.0.113.9", "::ffff:203.0.113.9", "203.0.113.9") == [422, 422, 429]


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


def counts(api: ApiService, metric: str) -> dict[str, float]:
    """Return how many requests were counted, by reason."""
    found = samples(api.client().get("/metrics").text)
    counted = {labels: n for (name, labels), n in found.items() if name == f"{metric}_total"}
    return {dict(labels)["reason"]: n for labels, n in counted.items() if n}


def behind_a_proxy(
    api: ApiService, *clients: str, header: str = "X-Forwarded-For", proxy: str = "127.0.0.1"
) -> list[int]:
    """Send one request for each client that the proxy names."""
    return [sign_up(api, proxy, **{header: client}).status_code for client in clients]


@pytest.fixture
def make_api(database_url: str) -> Iterator[Callable[..., ApiService]]:
    """Build the API with the default settings, which exempt its own machine."""
    with ExitStack() as services:
        limits = RateLimits(LIMITS.by_name, (ip_network("127.0.0.0/8"), ip_network("::1"), ip_network("192.0.2.0/24")))
        yield lambda **settings: services.enter_context(api_service(database_url, rate_limits=limits, **settings))


@pytest.mark.parametrize("client", ["203.0.113.8:40000", "[2001:db8::1]:443", "[2001:db8::1]", "::ffff:203.0.113.9"])
def test_a_client_that_a_proxy_names_with_a_port_is_limited_like_any_other(
    make_api: Callable[..., ApiService], client: str
) -> None:
    api = make_api(trusted_proxies=1)

    assert behind_a_proxy(api, *[client] * 3, "203.0.113.77") == [422, 422, 429, 422]
    assert counts(api, "http_unknown_clients") == {}


def test_clients_that_cannot_be_read_share_one_limit(make_api: Callable[..., ApiService]) -> None:
    api = make_api(trusted_proxies=1)

    assert behind_a_proxy(api, "unknown", "_hidden", "203.0.113", "203.0.113.8") == [422, 422, 429, 422]
    assert counts(api, "http_unknown_clients") == {"address unreadable": 3}


@pytest.mark.parametrize("client", ["127.0.0.1", "127.1.2.3:80", "::1", "[::1]:80", "::ffff:127.0.0.1"])
def test_loopback_in_a_header_is_not_exempt(make_api: Callable[..., ApiService], client: str) -> None:
    assert behind_a_proxy(make_api(trusted_proxies=1), *[client] * 3) == [422, 422, 429]


def test_a_network_that_the_operator_exempts_is_exempt_in_a_header_too(make_api: Callable[..., ApiService]) -> None:
    assert behind_a_proxy(make_api(trusted_proxies=1), *["192.0.2.7"] * 3) == [422] * 3


def test_the_header_of_rfc_7239_is_limited_where_the_operator_names_it(make_api: Callable[..., ApiService]) -> None:
    api = make_api(trusted_proxies=1, forwarding_header="forwarded")
    first, second = 'for="[2001:db8::1]:443";proto=https', "for=203.0.113.8"

    assert behind_a_proxy(api, first, first, first, second, header="Forwarded") == [422, 422, 429, 422]


@pytest.mark.parametrize(
    ("trusted", "header"), [(0, "X-Forwarded-For"), (2, "X-Forwarded-For"), (1, "Forwarded"), (0, "X-Real-IP")]
)
def test_behind_an_exempt_proxy_that_is_not_believed_all_clients_share_one_limit(
    make_api: Callable[..., ApiService], trusted: int, header: str
) -> None:
    api = make_api(trusted_proxies=trusted)
    value = "for=203.0.113.{}" if header == "Forwarded" else "203.0.113.{}"

    with capture_logs() as logged:
        answers = behind_a_proxy(api, *[value.format(number) for number in range(3)], header=header)

    assert answers == [422, 422, 429]
    assert counts(api, "http_unknown_clients") == {"header not believed": 3}
    assert [line["header"] for line in logged if line["event"] == "forwarding_header.ignored"] == [header]
    assert [
        row["name"] for row in api.sql("SELECT name FROM ignored_headers WHERE seen_at > now() - interval '1 min'")
    ] == [header]


def test_a_header_that_nothing_believes_costs_one_statement_and_not_one_each_time(
    make_api: Callable[..., ApiService],
) -> None:
    api = make_api()

    kept = []
    for _ in range(2):
        sign_up(api, **{"X-Forwarded-For": "203.0.113.8"})
        kept.append(api.sql("SELECT seen_at FROM ignored_headers"))

    assert len(kept[0]) == 1
    assert kept[1] == kept[0]


def test_a_header_that_nothing_believes_is_logged_at_any_request(make_api: Callable[..., ApiService]) -> None:
    api = make_api()

    with capture_logs() as logged:
        for _ in range(2):
            api.client().get("/healthz", headers={"Forwarded": "for=203.0.113.8"})

    assert [line["header"] for line in logged if line["event"] == "forwarding_header.ignored"] == ["Forwarded"]


def test_a_client_on_the_own_machine_without_such_a_header_is_exempt(make_api: Callable[..., ApiService]) -> None:
    api = make_api()

    assert statuses(api, *["127.0.0.1"] * 3, *["::1"] * 3) == [422] * 6
    assert api.sql("SELECT name FROM ignored_headers") == []


def test_a_role_that_may_not_keep_the_header_signs_people_up(api: ApiService) -> None:
    with limited_api(api) as (limited, _):
        answer = limited.client().post("/v1/users", json=ALICE, headers={"X-Forwarded-For": "203.0.113.8"})

    assert answer.status_code == 201


class FailingStorage(MemoryStorage):
    def incr(self, *_: object, **__: object) -> int:
        raise MemoryError


def test_limiter_that_fails_refuses_no_request(database_url: str) -> None:
    with api_service(database_url, rate_limiter=RateLimiter(LIMITS, FailingStorage)) as api:
        response = api.client().post("/v1/users", json=ALICE, environ_base={"REMOTE_ADDR": "203.0.113.9"})

    assert response.status_code == 201
    assert "RateLimit" not in response.headers


def test_clients_without_an_address_share_one_limit(api: ApiService) -> None:
    """As at a Unix socket, where a proxy is the only client."""
    assert statuses(api, "", "unix", "") == [422, 422, 429]


def test_a_clock_that_is_set_back_locks_no_client_out(api: ApiService) -> None:
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False) as clock:
        before = statuses(api, *["203.0.113.9"] * 3)
        clock.move_to(now - timedelta(hours=6))
        after = statuses(api, *["203.0.113.9"] * 3)

    assert (before, after) == ([422, 422, 429], [422, 422, 429])


def test_forwarding_headers_are_believed_from_as_many_proxies_as_are_trusted(
    database_url: str, api: ApiService
) -> None:
    def answers(service: ApiService) -> list[int]:
        return [sign_up(service, **{"X-Forwarded-For": f"198.51.100.{number}"}).status_code for number in range(3)]

    with api_service(database_url, rate_limits=LIMITS, trusted_proxies=1) as behind_proxy:
        assert answers(behind_proxy) == [422, 422, 422]
    assert answers(api) == [422, 422, 429]


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
