"""PostgreSQL is unavailable, or its answer is lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest

from consumer.model.results import Disposition
from consumer.stages.database import Database, TaskConnection
from consumer.stages.processor import Processor
from consumer.task import Context, Mail
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from embedded.servers.postgres import PostgresServer
from shared.database.connections import connect, connect_as, transaction
from tests.consumer.stages.processing.postgresql.lost_answers import LOST, LosesAnswers
from tests.consumer.stages.processing.world import Logs, MailTest, World, register, running, waits_for_a_lock, world_of
from tests.dispositions import dispositions
from tests.rows import add_message, add_user, message
from tests.waiting import wait_until

CLAIM = 1
"""A message's transactions are numbered: claim, preparation, outcome."""


class CommitsLate(Database):
    """The first transaction's connection breaks before PostgreSQL commits."""

    def __init__(self, database_url: str, is_awaited: Callable[[], bool]) -> None:
        super().__init__(database_url)
        self._is_awaited = is_awaited
        self.commits: list[threading.Thread] = []

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        if self.commits:
            with super().transaction(**limits) as connection:
                yield connection
            return
        broken = connect_as(TaskConnection, self._database_url, "outbox-consumer")
        under_way = transaction(broken)
        under_way.__enter__()
        yield broken

        def commit() -> None:
            wait_until(self._is_awaited, 10, "the second claim to wait for the first")
            under_way.__exit__(None, None, None)
            broken.close()

        self.commits.append(threading.Thread(target=commit))
        self.commits[0].start()
        raise LOST


def test_a_claim_whose_answer_was_lost_is_found_by_its_token(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")

    assert world.process(id_, database=LosesAnswers(world.url, CLAIM)) is Disposition.DELIVERED

    assert (world.message(id_)["attempt"], len(mailbox.mails()), len(world.records())) == (1, 1, 1)


class UnavailableAfterTheClaim(LosesAnswers):
    """The answer to the claim's COMMIT is lost, and PostgreSQL is unavailable for longer than the lease."""

    def __init__(self, database_url: str, seconds: float) -> None:
        super().__init__(database_url, CLAIM)
        self._back_at = monotonic() + seconds

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        if self._number >= 1 and monotonic() < self._back_at:
            raise LOST
        with super().transaction(**limits) as connection:
            yield connection


def test_an_outage_of_postgresql_longer_than_the_lease_of_a_lost_claim_spends_no_attempt(
    world: World, mailbox: MailCatcher
) -> None:
    id_ = add_message(world.connection, status="published")
    database = UnavailableAfterTheClaim(world.url, seconds=1.0)

    assert world.process(id_, database=database, run_lease_seconds=0.5) is Disposition.RELEASED

    row = world.message(id_)
    assert (row["status"], row["attempt"], len(mailbox.mails())) == ("pending", 0, 0)


def test_a_claim_whose_commit_is_in_progress_is_waited_for(world: World, mailbox: MailCatcher) -> None:
    database = CommitsLate(world.url, lambda: waits_for_a_lock(world))
    id_ = add_message(world.connection, status="published")

    assert world.process(id_, database=database) is Disposition.DELIVERED

    database.commits[0].join()
    assert (world.message(id_)["attempt"], len(mailbox.mails()), len(world.records())) == (1, 1, 1)


def test_a_claim_of_another_worker_is_not_taken_for_a_rolled_back_one(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")

    class RollsBack(Database):
        """Another consumer takes the message while this one reconnects."""

        @contextmanager
        def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
            try:
                with super().transaction(**limits) as connection:
                    yield connection
                    if world.message(id_)["status"] == "published":
                        raise LOST
            except psycopg.OperationalError:
                world.connection.execute(
                    "UPDATE outbox SET status = 'running', attempt = 1, claim_token = gen_random_uuid(),"
                    " claimed_at = now(), lease_until = now() + interval '30 s'"
                )
                raise

    assert world.process(id_, database=RollsBack(world.url)) is Disposition.NOT_CLAIMED

    assert (world.message(id_)["status"], mailbox.mails()) == ("running", [])


def test_an_acknowledgement_whose_answer_was_lost_is_done(world: World, mailbox: MailCatcher, logs: Logs) -> None:
    id_ = add_message(world.connection)

    assert world.process(id_, database=LosesAnswers(world.url, CLAIM + 2, CLAIM + 3)) is Disposition.DELIVERED

    assert (world.message(id_)["status"], world.message(id_)["attempt"], len(mailbox.mails())) == ("done", 1, 1)
    assert [line["event"] for line in logs] == ["result.not_written", "message.delivered"]


@pytest.mark.parametrize(
    ("fault", "disposition", "left"),
    [
        ("data-451", Disposition.FAILED, ("pending", 1, 1, 1)),
        ("data-554", Disposition.DEAD, ("dead", 1, 0, 1)),
        ("mail-451", Disposition.RELEASED, ("pending", 0, 1, 0)),
    ],
)
def test_an_outcome_whose_answer_was_lost_is_written_and_logged_once(
    world: World,
    mailbox: MailCatcher,
    logs: Logs,
    fault: str,
    disposition: Disposition,
    left: tuple[str, int, int, int],
) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)

    assert world.process(id_, database=LosesAnswers(world.url, CLAIM + 2)) is disposition

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"], len(row["failures"])) == left
    assert dispositions(logs) == [disposition.value]


def test_an_acknowledgement_is_retried_after_postgresql_was_killed(
    own_postgres: PostgresServer, mailbox: MailCatcher, logs: Logs
) -> None:
    mailbox.set_fault("slow:0.25")
    url = own_postgres.url("outbox")
    with world_of(url, mailbox.smtp_port) as world:
        id_ = add_message(world.connection, status="published")
        consumer = world.consumer()
        with running(lambda: consumer.process(id_)) as disposition:
            wait_until(lambda: bool(world.records()), 10, "the mail to be prepared")
            own_postgres.kill()
            mailbox.wait_for(1)
            wait_until(lambda: "result.not_written" in [line["event"] for line in logs], 10, "a try to acknowledge")
            own_postgres.start()

        assert disposition.result() is Disposition.DELIVERED
    with connect(url, "test") as connection:
        row = message(connection, id_)
    assert (row["status"], row["attempt"], len(mailbox.mails())) == ("done", 1, 1)


def test_a_claim_waits_for_a_postgresql_that_restarts(own_postgres: PostgresServer, mailbox: MailCatcher) -> None:
    url = own_postgres.url("outbox")
    with connect(url, "test") as connection:
        add_user(connection)
        id_ = add_message(connection, status="published")
    with world_of_killed(own_postgres, mailbox) as consumer, running(lambda: consumer.process(id_)) as disposition:
        own_postgres.start()

    assert disposition.result() is Disposition.DELIVERED


@contextmanager
def world_of_killed(server: PostgresServer, mailbox: MailCatcher) -> Iterator[Processor]:
    """Yield a consumer whose server has just been killed."""
    settings = World(server.url("outbox"), mailbox.smtp_port)
    consumer = settings.consumer()
    assert consumer.process(1_000_000) is Disposition.NOT_CLAIMED
    server.kill()
    try:
        yield consumer
    finally:
        settings.close()


def test_without_postgresql_the_message_is_left_where_it_is(world: World, logs: Logs) -> None:
    started = monotonic()

    port = free_port()

    disposition = world.process(
        1, database_url=f"postgresql://postgres@{LOOPBACK}:{port}/outbox", run_lease_seconds=0.9
    )

    assert (disposition, dispositions(logs)) == (Disposition.UNACKNOWLEDGED, ["unacknowledged"])
    assert logs[-1]["reason"] == f"{LOOPBACK}:{port}: Connection refused"
    assert monotonic() - started < 5


def test_without_the_tables_the_message_is_left_where_it_is(empty_database_url: str, mailbox: MailCatcher) -> None:
    world = World(empty_database_url, mailbox.smtp_port)

    disposition = world.process(1)
    world.close()

    assert disposition is Disposition.UNACKNOWLEDGED


def test_a_worker_past_its_deadline_gives_up_an_unwritten_outcome(
    own_postgres: PostgresServer, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("slow:0.25")
    with world_of(own_postgres.url("outbox"), mailbox.smtp_port) as world:
        id_ = add_message(world.connection)
        has_to_leave = threading.Event()
        consumer = world.consumer(deadline_passed=has_to_leave.is_set)
        with running(lambda: consumer.process(id_)) as disposition:
            wait_until(lambda: bool(world.records()), 10, "the mail to be prepared")
            own_postgres.kill()
            mailbox.wait_for(1)
            has_to_leave.set()

        assert disposition.result() is Disposition.UNACKNOWLEDGED


def test_postgresql_ends_an_idle_transaction(world: World) -> None:
    limits: list[Any] = []

    def ask(context: Context, _message: MailTest) -> Mail:
        limits.append(context.connection.execute("SHOW idle_in_transaction_session_timeout").fetchone())
        raise RuntimeError

    world.process(add_message(world.connection, register(world, ask)))

    assert limits == [("5s",)]
