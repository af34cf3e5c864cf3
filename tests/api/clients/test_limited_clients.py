"""Which requests come from one client, with and without proxies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from shared.settings.rate_limits import RateLimits
from tests.api.clients.steps import LIMITS, sign_up, statuses
from tests.operations.scraping import samples
from tests.programs.api_service import ALICE, ApiService, api_service, limited_api


def test_each_address_has_its_own_limit(api: ApiService) -> None:
    assert statuses(api, *["203.0.113.9"] * 3, "203.0.113.10") == [422, 422, 429, 422]


def test_addresses_of_one_ipv6_network_share_a_limit(api: ApiService) -> None:
    assert statuses(api, "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1") == [422, 422, 429, 422]


def test_an_ipv4_address_in_ipv6_clothes_is_the_same(api: ApiService) -> None:
    assert statuses(api, "203.0.113.9", "::ffff:203.0.113.9", "203.0.113.9") == [422, 422, 429]


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


def test_clients_without_an_address_share_one_limit(api: ApiService) -> None:
    """As at a Unix socket, where a proxy is the only client."""
    assert statuses(api, "", "unix", "") == [422, 422, 429]


def test_forwarding_headers_are_believed_from_as_many_proxies_as_are_trusted(
    database_url: str, api: ApiService
) -> None:
    def answers(service: ApiService) -> list[int]:
        return [sign_up(service, **{"X-Forwarded-For": f"198.51.100.{number}"}).status_code for number in range(3)]

    with api_service(database_url, rate_limits=LIMITS, trusted_proxies=1) as behind_proxy:
        assert answers(behind_proxy) == [422, 422, 422]
    assert answers(api) == [422, 422, 429]
