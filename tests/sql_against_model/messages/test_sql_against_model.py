"""The real statements do what the model says, and a difference fails the test."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import open_broker
from shared.outbox import publishing, reaping
from shared.outbox.claiming import claims as of_consumer
from shared.outbox.claiming import renewals
from tests.model.messages.state import Config
from tests.model.messages.test_protocol import STEPS
from tests.sql_against_model.messages.paths import PATHS
from tests.sql_against_model.messages.servers import Servers
from tests.sql_against_model.messages.service import Service
from tests.sql_against_model.messages.walking import follow, walk_and_shrink, walk_until_divergence
from tests.sql_against_model.moment import DivergenceError
from tests.sql_against_model.unguarded import leave_out


@pytest.fixture
def service(database_url: str, redis_url: str) -> Iterator[Service]:
    with (
        Redis.from_url(redis_url) as redis,
        closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker,
        closing(Service(Servers(database_url, redis, broker))) as service,
    ):
        yield service


@pytest.mark.parametrize("walks", [15, pytest.param(60, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_says(service: Service, walks: int) -> None:
    walk_and_shrink(service, walks)
    for path in PATHS.values():
        follow(service, Config(faults=2, orders=2), path)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


@pytest.mark.parametrize(
    ("statement", "clause", "instead"),
    [
        pytest.param(
            *(reaping.reap_running, "lease_until < (SELECT clock_timestamp())", "lease_until IS NOT NULL"),
            marks=pytest.mark.long,
        ),
        (publishing.take_batch, "FOR UPDATE SKIP LOCKED", ""),
    ],
    ids=["reap_running", "take_batch"],
)
def test_walks_find_a_missing_guard(
    service: Service, monkeypatch: pytest.MonkeyPatch, statement: Callable[..., Any], clause: str, instead: str
) -> None:
    leave_out(monkeypatch, statement, clause, instead)

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        walk_until_divergence(service=service)

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize(
    ("statement", "clause", "instead", "path", "noticed_at"),
    [
        (
            of_consumer.claim,
            "(status = 'published' OR (status = 'pending' AND due_at <= now()))",
            "true",
            "a-claim-in-doubt-lands",
            "claim of one's own row",
        ),
        (
            of_consumer.ack,
            "claim_token = claim.token",
            "claim.token IS NOT NULL",
            "a-frozen-consumer-acknowledges-too-late",
            "ack: still ours",
        ),
        (
            of_consumer.discard_claims,
            "claim_token = claim.token",
            "claim.token IS NOT NULL",
            "a-frozen-consumer-discards-too-late",
            "discard_claims: still ours",
        ),
        (of_consumer.fail, "claim_token = %(token)s", "true", "a-frozen-consumer-fails-too-late", "fail: still ours"),
        (
            renewals.renew_claim,
            "claim_token = %s",
            "%s IS NOT NULL",
            "a-frozen-consumer-renews-too-late",
            "renew_claim: still ours",
        ),
    ],
    ids=["claim", "ack", "discard_claims", "fail", "renew_claim"],
)
def test_path_finds_a_missing_guard(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    statement: Callable[..., Any],
    clause: str,
    instead: str,
    path: str,
    noticed_at: str,
) -> None:
    leave_out(monkeypatch, statement, clause, instead)

    with pytest.raises(DivergenceError, match=noticed_at) as noticed:
        follow(service, Config(faults=2), PATHS[path])

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
