"""A retry after a timeout waits for the late answer, under a lease that is renewed."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from consumer.model.lease import Lease
from consumer.model.message import ClaimedMessage
from consumer.model.results import Disposition
from consumer.stages.processor import Processor
from consumer.stages.sending.late_answers import LateAnswers
from embedded.programs.ports import LOOPBACK, free_port
from shared.outbox.claiming import claims
from shared.outbox.reaping import Reaped, reap_running
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import Logs, World, running
from tests.rows import add_message
from tests.servers.scripted_mail_server import CONTENT, Answer, ScriptedMailServer, Session
from tests.waiting import wait_until

LEASE = 1.5
"""Two thirds of it, one second, are the time for an answer."""

SILENCE = Jsonb([{"attempt": 1, "reason": "silence", "maybe_accepted": True, "unanswered": True}])


def late(seconds: float, answer: str = "250 OK") -> Answer:
    def wait(session: Session) -> str:
        session.server.is_stopping.wait(seconds)
        return answer

    return wait


@contextmanager
def consumer_of(world: World, server: ScriptedMailServer) -> Iterator[Processor]:
    yield world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), run_lease_seconds=LEASE)


def claim_of(world: World, message_id: int) -> ClaimedMessage:
    [claim] = claims.claim(world.connection, [message_id], uuid4(), LEASE)
    return ClaimedMessage(claim, Lease.start(LEASE))


def test_an_answer_that_takes_several_leases_causes_no_second_copy(world: World, logs: Logs) -> None:
    id_ = add_message(world.connection)
    reaped: list[Reaped] = []
    with ScriptedMailServer({CONTENT: late(2.6)}) as server, consumer_of(world, server) as consumer:
        assert consumer.process(id_) is Disposition.FAILED
        [failure] = world.message(id_)["failures"]
        assert failure["unanswered"] is True
        world.make_due(id_)

        with running(lambda: consumer.process(id_)) as outcome:

            def is_done() -> bool:
                reaped.extend(reap_running(world.connection, 10, grace_seconds=0))
                return outcome.done()

            wait_until(is_done, 10, "the late answer")

    assert (outcome.result(), reaped, len(server.contents)) == (Disposition.DELIVERED, [], 2)
    assert world.message(id_)["attempt"] == 2
    assert [line["message_id"] for line in logs if line["event"] == "lease.renewed"] == [id_, id_]


def test_a_late_refusal_counts(world: World) -> None:
    id_ = add_message(world.connection, failures=SILENCE)
    with ScriptedMailServer({CONTENT: late(1.5, "554 5.6.0 no")}) as server, consumer_of(world, server) as consumer:
        assert consumer.process(id_) is Disposition.DEAD


def test_the_first_attempt_renews_nothing(world: World, logs: Logs) -> None:
    id_ = add_message(world.connection)
    with ScriptedMailServer({CONTENT: late(1.5)}) as server, consumer_of(world, server) as consumer:
        assert consumer.process(id_) is Disposition.FAILED

    assert "lease.renewed" not in {line["event"] for line in logs}


def test_after_a_crash_the_next_attempt_waits_too(world: World) -> None:
    id_ = add_message(world.connection, failures=SILENCE)
    claim_of(world, id_)
    world.connection.execute("UPDATE outbox SET lease_until = now()")
    assert [each.id for each in reap_running(world.connection, 10, grace_seconds=0)] == [id_]

    assert claim_of(world, id_).claim.met_silence


def test_the_wait_ends_when_the_message_was_taken_over(world: World) -> None:
    id_ = add_message(world.connection, failures=SILENCE)
    with (
        ScriptedMailServer({CONTENT: late(10.0)}) as server,
        consumer_of(world, server) as consumer,
        running(lambda: consumer.process(id_)) as outcome,
    ):
        wait_until(lambda: server.contents, 5, "the mail")
        world.take_back(id_)
        began = monotonic()
        assert outcome.result(5) is Disposition.CLAIM_LOST

    assert monotonic() - began < 2.0
    assert world.message(id_)["status"] == "pending"


@pytest.mark.parametrize(
    ("longest_seconds", "shutting_down"), [(0.0, False), (600.0, True)], ids=["ten minutes are over", "told to stop"]
)
def test_the_lease_is_not_renewed(world: World, *, longest_seconds: float, shutting_down: bool) -> None:
    message = claim_of(world, add_message(world.connection))
    waits = LateAnswers(
        world.settings.database_url,
        senders=lambda: 1,
        shutting_down=lambda: shutting_down,
        longest_seconds=longest_seconds,
    )

    with waits.place(message) as wait:
        assert wait is not None
        assert wait.extend() is None


def test_a_renewed_wait_ends_after_ten_minutes(world: World) -> None:
    message = claim_of(world, add_message(world.connection))
    waits = LateAnswers(world.settings.database_url, senders=lambda: 1, longest_seconds=0.5)

    with waits.place(message) as wait:
        assert wait is not None
        until = wait.extend()

    assert until is not None
    assert until - monotonic() <= 0.5


def test_the_lease_limits_a_renewal_while_postgresql_is_unavailable(world: World, logs: Logs) -> None:
    message = claim_of(world, add_message(world.connection))
    nowhere = f"postgresql://postgres@{LOOPBACK}:{free_port()}/nothing"

    with LateAnswers(nowhere, senders=lambda: 1).place(message) as wait:
        assert wait is not None
        assert wait.extend() is None

    assert message.lease.is_over()
    assert monotonic() < message.lease.started_at + LEASE + 2.5
    assert [line["log_level"] for line in logs if line["event"] == "lease.not_renewed"] == ["warning"]


@pytest.mark.parametrize(("senders", "places"), [(1, 1), (2, 1), (5, 2), (10, 5)])
def test_half_of_the_senders_may_wait(world: World, senders: int, places: int) -> None:
    message = claim_of(world, add_message(world.connection))
    waits = LateAnswers(world.settings.database_url, senders=lambda: senders)
    taken = [waits.place(message) for _ in range(places)]

    assert None not in [each.__enter__() for each in taken]
    with waits.place(message) as one_too_many:
        assert one_too_many is None
    taken[0].__exit__(None, None, None)
    with waits.place(message) as another:
        assert another is not None


def test_a_message_without_a_place_to_wait_is_released_unsent(world: World) -> None:
    waits_already, id_ = (add_message(world.connection, failures=SILENCE, attempt=1) for _ in range(2))
    with ScriptedMailServer({}) as server, consumer_of(world, server) as consumer:
        with consumer._place._sender._mails._late_answers.place(claim_of(world, waits_already)):  # noqa: SLF001
            assert consumer.process(id_) is Disposition.RELEASED
        row = world.message(id_)

    assert (row["status"], row["attempt"], server.contents) == ("pending", 1, [])
    [(waits_seconds,)] = world.connection.execute(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM outbox WHERE id = %s", [id_]
    ).fetchall()
    assert 50 < waits_seconds <= 60
