"""Whether the mail server works is decided by mails: what is done elsewhere says nothing about it."""

import pytest

from consumer.stages.recording import busy_server
from shared.database.connections import DbConnection
from shared.outbox.claiming import policy_refusals
from tests.consumer.stages.destinations.calls import Calls, WriteForCrm
from tests.consumer.stages.processing.mail_server.policy_pipeline import pipeline_of
from tests.rows import add_message, add_user


def finish(connection: DbConnection, destination: str) -> None:
    """Add a message that was done a moment ago."""
    connection.execute(
        "INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, failures,"
        " created_at, finished_at, destination)"
        " VALUES (%s, 't', '{}', 'default', 'done', now(), 0, 1, '[]', now(), clock_timestamp(), %s)",
        [1_000_000 + len(destination), destination],
    )


def test_refusals_by_policy_are_an_outage_while_other_work_is_done(calls: Calls) -> None:
    with pipeline_of(calls.world, {"everybody"}) as pipeline:
        for number in range(3):
            pipeline.work(pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example"))
            calls.process(calls.add(WriteForCrm))

        assert pipeline.is_outage


@pytest.mark.parametrize(("destination", "is_mail"), [("mail", True), ("local", False), ("webhook:1", False)])
def test_only_a_mail_shows_that_the_mail_server_accepts_mails(
    connection: DbConnection, destination: str, *, is_mail: bool
) -> None:
    policy_refusals.lock_breaker(connection)
    finish(connection, destination)

    status = policy_refusals.read_policy_status(connection)

    assert busy_server.serves_others(connection) is is_mail
    assert (status.accepted_at > 0) is is_mail


@pytest.mark.parametrize(
    ("destination", "status", "waits"),
    [
        ("mail", "pending", True),
        (None, "pending", True),
        ("mail", "published", True),
        (None, "published", True),
        ("mail", "running", True),
        ("webhook:1", "pending", False),
        ("webhook:1", "published", False),
        ("local", "running", False),
    ],
)
def test_only_a_mail_waits_for_another_domain(
    connection: DbConnection, destination: str | None, status: str, *, waits: bool
) -> None:
    add_user(connection)
    add_message(connection, status=status, destination=destination)

    assert policy_refusals.another_domain_waits(connection, "other.example") is waits
    assert not policy_refusals.another_domain_waits(connection, "example.com")
