"""Which requests pages of other sites may send, and what they may read."""

from collections.abc import Iterator

import pytest
from limits import parse

from shared.settings.rate_limits import RateLimits
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service

SITE = "https://app.example.com"
LOCAL = "http://[::1]:3000"
STRANGERS = [
    "https://evil.example",
    "https://app.example.com.evil.example",
    "https://app-example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "http://1:3000",
    "null",
]


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    limits = RateLimits({"signup": parse("2 per minute")})
    with api_service(database_url, cors_origins=(SITE, LOCAL), rate_limits=limits) as service:
        yield service


def allowed(headers: object) -> dict[str, str]:
    """Return what a response allows."""
    return {name: value for name, value in dict(headers).items() if name.startswith("Access-Control-")}  # type: ignore[call-overload]


@pytest.mark.parametrize("origin", [SITE, LOCAL])
def test_a_page_of_an_allowed_site_signs_up_and_reads_the_answer(api: ApiService, origin: str) -> None:
    client = api.client()
    asks = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    preflight = client.options("/v1/users", headers=asks)
    answer = client.post("/v1/users", json=ALICE, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})

    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type, idempotency-key"
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert preflight.headers["Access-Control-Max-Age"] == "7200"
    assert answer.status_code == 201
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert {"Retry-After", "RateLimit"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    for response in (preflight, answer):
        assert "Origin" in response.vary
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_errors_are_read_too(api: ApiService) -> None:
    answers = [
        api.client().post("/v1/users", json={}, headers={"Origin": SITE}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
        for _ in range(3)
    ]
    nowhere = api.client().get("/v1/nowhere", headers={"Origin": SITE})

    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert nowhere.status_code == 404
    assert {answer.headers.get("Access-Control-Allow-Origin") for answer in [*answers, nowhere]} == {SITE}


def test_asking_whether_one_may_ask_counts_towards_no_limit(api: ApiService) -> None:
    asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    answers = [
        api.client().options("/v1/users", headers=asks, environ_base={"REMOTE_ADDR": "203.0.113.9"}) for _ in range(4)
    ]

    assert [answer.status_code for answer in answers] == [200] * 4


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_page_of_another_site_reads_nothing(api: ApiService, origin: str) -> None:
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    client = api.client()

    assert allowed(client.options("/v1/users", headers=asks).headers) == {}
    assert allowed(client.post("/v1/users", json={}, headers={"Origin": origin}).headers) == {}


@pytest.mark.parametrize("path", ["/", "/inbox", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/ops"])
def test_no_page_of_another_site_reads_what_is_not_of_the_api(api: ApiService, path: str) -> None:
    asks = {**PAGE, "Origin": SITE, "Access-Control-Request-Method": "GET"}

    assert allowed(api.client().options(path, headers=asks).headers) == {}
    assert allowed(api.client().get(path, headers=asks).headers) == {}


def test_an_answer_without_an_origin_names_no_site(api: ApiService) -> None:
    assert allowed(api.client().get("/v1/nowhere").headers) == {}


def test_no_site_is_allowed_by_default(database_url: str) -> None:
    with api_service(database_url) as api:
        asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}

        assert allowed(api.client().options("/v1/users", headers=asks).headers) == {}
        assert allowed(api.sign_up().headers) == {}
