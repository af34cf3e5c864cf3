from typing import Any

import psycopg
import pytest

from outbox_relay.broker import Broker
from tests.outbox_relay.loop.publishing.publishers import publisher_to
from tests.rows import add_message, open_breaker

Connection = psycopg.Connection[tuple[Any, ...]]


def next_due(connection: Connection, broker: Broker) -> float | None:
    """Return the time until the next message as a new publisher finds it."""
    return publisher_to(broker).next_due(connection)


def test_the_next_message_is_due_at_the_next_probe_while_the_breaker_is_open(
    connection: Connection, broker: Broker
) -> None:
    add_message(connection)
    open_breaker(connection, probe_in_seconds=60)

    assert next_due(connection, broker) == pytest.approx(60, abs=2)


def test_next_due_is_the_nearest_of_both_queues(connection: Connection, broker: Broker) -> None:
    assert next_due(connection, broker) is None

    add_message(connection, queue="default")
    connection.execute("UPDATE outbox SET due_at = now() + interval '40 s'")
    assert next_due(connection, broker) == pytest.approx(40, abs=2)

    add_message(connection, queue="critical")
    assert next_due(connection, broker) == pytest.approx(0, abs=2)


@pytest.mark.parametrize(("due_at", "seconds"), [("-infinity", float("-inf")), ("infinity", None)])
def test_a_due_time_without_end_is_no_obstacle(
    connection: Connection, broker: Broker, due_at: str, seconds: float | None
) -> None:
    add_message(connection, due_at=due_at)

    assert next_due(connection, broker) == seconds
