"""Our own steps stay within the bounds of a row, whatever somebody else wrote up to them."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from consumer.task.definition import LONGEST_DELAY_SECONDS, default_delay_seconds
from shared.outbox import reaping
from shared.outbox.claiming import claims as of_consumer
from shared.outbox.claiming import policy_refusals, releases
from shared.outbox.claiming.policy_refusals import Refusal
from shared.outbox.columns import FAILURES_KEPT, LARGEST_NUMBER
from shared.outbox.messages import JobRef
from shared.outbox.operations import dead_letters
from tests.rows import add_message, add_user, message

Connection = psycopg.Connection[tuple[Any, ...]]

LAST: dict[str, Any] = {"generation": LARGEST_NUMBER, "attempt": LARGEST_NUMBER, "max_retries": LARGEST_NUMBER}
OF_A_YEAR_1 = "0001-01-01T00:00:00+00:00"


def test_a_returned_message_counts_its_generations_on_from_0(connection: Connection) -> None:
    id_ = add_message(connection, status="published", generation=LARGEST_NUMBER)

    returned = reaping.return_missing(connection, [JobRef(id_, LARGEST_NUMBER, "default")])

    assert returned == [JobRef(id_, LARGEST_NUMBER, "default")]
    assert message(connection, id_)["generation"] == 0


def test_a_message_at_every_bound_is_claimed_failed_released_and_retried(connection: Connection) -> None:
    reason = "ü" * 5000
    id_ = add_message(connection, **LAST, last_error=reason[:4000], failures=Jsonb([{"text": "x" * 1_000_000}]))
    [claim] = of_consumer.claim(connection, [id_], uuid4(), 60)

    assert claim.attempt == LARGEST_NUMBER
    assert releases.release(connection, [claim], reason) == {id_}
    [claim] = of_consumer.claim(connection, [id_], uuid4(), 60)
    delay = default_delay_seconds(claim.attempt)
    assert delay == LONGEST_DELAY_SECONDS
    assert of_consumer.fail(connection, claim, reason, details={}, delay_seconds=delay, is_dead=True)
    [failure] = message(connection, id_)["failures"]
    assert failure["reason"] == message(connection, id_)["last_error"] == reason[:2000]
    connection.execute("UPDATE outbox SET generation = %s", [LARGEST_NUMBER])
    assert dead_letters.retry(connection, id_)
    assert (message(connection, id_)["generation"], message(connection, id_)["attempt"]) == (0, 0)


def test_a_dead_letter_at_the_bound_gets_its_attempt_back(connection: Connection) -> None:
    id_ = add_message(connection, status="dead", **LAST)
    refusal = Refusal(id_, LARGEST_NUMBER, LARGEST_NUMBER, 1, "recipient", "domain", "5.7.1", 0.0)

    assert policy_refusals.return_attempts(connection, [refusal]) == {id_}
    row = message(connection, id_)
    assert (row["status"], row["generation"], row["attempt"]) == ("pending", 0, LARGEST_NUMBER - 1)


def test_a_payload_that_unfolds_is_not_read_to_find_another_domain(connection: Connection) -> None:
    add_user(connection, "bob", email="bob@b.example")
    add_message(connection, payload={"username": "bob", "text": "x" * 300_000})

    assert not policy_refusals.another_domain_waits(connection, "a.example")
    add_message(connection, payload={"username": "bob"})
    assert policy_refusals.another_domain_waits(connection, "a.example")


def test_failures_that_are_within_bounds_and_many_are_no_obstacle(connection: Connection) -> None:
    many = [{"n": n} for n in range(FAILURES_KEPT * 10)]
    id_ = add_message(connection, status="running", failures=Jsonb(many), lease_until="2020-01-01T00:00:00Z")

    [reaped] = reaping.reap_running(connection, 10, grace_seconds=0)

    assert reaped.id == id_
    assert message(connection, id_)["failures"][:-1] == many[1:]


@pytest.mark.parametrize(("claimed_at", "lease_until"), [(OF_A_YEAR_1, "2020-01-01"), ("9999-01-01", OF_A_YEAR_1)])
def test_a_claim_of_a_thousand_years_is_taken_back_for_a_time_that_comes(
    connection: Connection, claimed_at: str, lease_until: str
) -> None:
    crash = "the worker died or froze: its lease ended without a result"
    id_ = add_message(
        connection, status="running", claimed_at=claimed_at, lease_until=lease_until, last_error=crash, max_retries=9
    )

    reaping.reap_running(connection, 10, grace_seconds=0)

    within = "SELECT due_at BETWEEN now() - interval '1 minute' AND now() + interval '1 day' FROM outbox WHERE id = %s"
    assert connection.execute(within, [id_]).fetchone() == (True,)


def test_a_payload_that_is_too_large_to_be_sent_stays_a_dead_letter(connection: Connection) -> None:
    large = add_message(connection, payload={"text": uuid4().hex * 60_000}, status="dead")
    connection.execute("ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL")
    connection.execute("UPDATE outbox SET payload = payload || '{}' WHERE id = %s", [large])
    small = add_message(connection, status="dead")

    assert dead_letters.retry(connection, large) is False
    assert dead_letters.is_too_large(connection, large)
    assert list(dead_letters.retry_selected(connection, dead_letters.select_dead(connection))) == [1]
    assert [message(connection, id_)["status"] for id_ in (large, small)] == ["dead", "pending"]
