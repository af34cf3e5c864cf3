"""Outages of two days, in minutes: the real steps of relay and consumer run as often as they would.

What is skipped is the sleep alone. Each probe of the mail server, each try to reach Redis or PostgreSQL is made.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.headerregistry import Address
from typing import Final

import psycopg
import pytest
import structlog
from rq.defaults import RQ_KEY_PREFIX

from consumer.model.message import AttemptResult, PreparedMessage
from consumer.model.outcomes import Accepted
from consumer.model.results import Disposition
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.database_retries import LONGEST_PAUSE_SECONDS as LONGEST_CONSUMER_PAUSE_SECONDS
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.prepare import Preparer
from consumer.stages.processor import Processor
from consumer.stages.record import ResultRecorder
from consumer.stages.send import Clients, Sender, open_mailer, open_webhook_client
from consumer.stages.sending.late_answers import LateAnswers
from consumer.task.registry import load_tasks
from embedded.programs.ports import free_port
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from outbox_relay.loop.pacing import Pacing
from outbox_relay.loop.publishing.publisher import Publisher
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from shared.outbox.destinations.breaker import LONGEST_PROBE_PAUSE_SECONDS
from shared.settings.consumer import DEFAULT_TASK_MODULES, ConsumerSettings
from shared.settings.smtp_server import SmtpServer
from tests.redis_keys import KEYS, as_text
from tests.rows import add_message, add_user
from tests.settings.relay import relay_settings

TASKS: Final = load_tasks(DEFAULT_TASK_MODULES)

MESSAGES = 20

LONGEST_RELAY_PAUSE_SECONDS = Pacing().longest_outage_pause_seconds


@dataclass(frozen=True)
class Outage:
    """What an outage cost, and how soon work went on."""

    tries: int
    attempts_spent: int
    done: int
    resumed_within_seconds: float


def consumer_settings(database_url: str, redis_url: str, smtp_url_port: int) -> ConsumerSettings:
    """Settings of a consumer whose mail server is on this port."""
    return ConsumerSettings(
        database_url=database_url,
        redis_url=redis_url,
        smtp_server=SmtpServer("smtp", "127.0.0.1", smtp_url_port),
        smtp_timeout_seconds=5,
        mail_from=Address("Bank", "no-reply", "bank.example"),
        base_url="http://localhost:8080",
        secret_keys=("k" * 32,),
        verify_email_minutes=1440,
        run_lease_seconds=60,
        backoff_scale=1.0,
        concurrency=1,
    )


def mail_server_away(database_url: str, redis_url: str, smtp_port: int, hours: float) -> Outage:
    """Simulate an outage of the mail server of this length, probe by probe, then come back."""
    with _pipeline(database_url, redis_url) as (connection, broker, publisher):
        away = Processor(consumer_settings(database_url, redis_url, free_port()), TASKS)
        probes = int(hours * 3600 / LONGEST_PROBE_PAUSE_SECONDS)
        for _ in range(probes):
            _let_the_next_probe_be_due(connection)
            publisher.publish_batch(connection, 1000)
            for message_id in _pop_all(broker):
                disposition = away.process(message_id)
                assert disposition is Disposition.RELEASED, disposition
        away.close()
        pause = connection.execute(
            "SELECT extract(epoch FROM probe_at - clock_timestamp())::float8 FROM outbox_destinations"
        ).fetchone()
        assert pause is not None
        assert isinstance(pause[0], float)
        attempts_spent = _attempts(connection)
        back = Processor(consumer_settings(database_url, redis_url, smtp_port), TASKS)
        _let_the_next_probe_be_due(connection)
        while publisher.publish_batch(connection, 1000):
            for message_id in _pop_all(broker):
                back.process(message_id)
        back.close()
        return Outage(probes, attempts_spent, _done(connection), pause[0])


def redis_away(database_url: str, redis_url: str, smtp_port: int, hours: float) -> Outage:
    """Simulate an outage of Redis of this length, try by try of the relay, then come back."""
    with _pipeline(database_url, redis_url) as (connection, broker, publisher):
        absent = open_broker(f"redis://127.0.0.1:{free_port()}/0", RQ_KEY_PREFIX, 60)
        patient = Publisher(absent, publish_lease_seconds=30, probe_timeout_seconds=60)
        tries = int(hours * 3600 / LONGEST_RELAY_PAUSE_SECONDS)
        for _ in range(tries):
            try:
                patient.publish_batch(connection, 1000)
            except BrokerUnavailableError:
                continue
            raise AssertionError("a Redis that is away took a push")
        absent.close()
        attempts_spent = _attempts(connection)
        _deliver_all(connection, broker, publisher, consumer_settings(database_url, redis_url, smtp_port))
        return Outage(tries, attempts_spent, _done(connection), LONGEST_RELAY_PAUSE_SECONDS)


def postgresql_away(database_url: str, redis_url: str, smtp_port: int, hours: float) -> Outage:
    """Simulate an outage of PostgreSQL of this length, when half of the mails are accepted and not acknowledged.

    Relay and worker look for it as often as they do in that time, and the worker tries to write its results.
    """
    settings = consumer_settings(database_url, redis_url, smtp_port)
    with _pipeline(database_url, redis_url) as (connection, broker, publisher):
        publisher.publish_batch(connection, 1000)
        ids = _pop_all(broker)
        mailed, waiting = ids[: MESSAGES // 2], ids[MESSAGES // 2 :]
        database = Database(database_url)
        results = ResultRecorder(database, backoff_scale=1.0)
        ended = _send(mailed, database, settings)
        nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/gone"
        _point(database, nowhere)
        with closing(Relay(relay_settings(nowhere, redis_url), broker, WakeupPipe())) as relay:
            tries = int(hours * 3600 / LONGEST_RELAY_PAUSE_SECONDS)
            for _ in range(tries):
                with pytest.raises(psycopg.OperationalError):
                    relay.run_once()
                assert not database.answers()
        for _ in range(int(hours * 3600 / LONGEST_CONSUMER_PAUSE_SECONDS)):
            assert results.record(ended) == []
            ended = []
        _point(database, database_url)
        settled = results.record([])
        assert {each.disposition for each in settled} == {Disposition.DELIVERED}
        attempts_spent = _attempts(connection)
        processor = Processor(settings, TASKS)
        for message_id in waiting:
            processor.process(message_id)
        processor.close()
        database.close()
        return Outage(tries, attempts_spent, _done(connection), LONGEST_RELAY_PAUSE_SECONDS)


def _send(ids: list[int], database: Database, settings: ConsumerSettings) -> list[AttemptResult]:
    """Claim the messages and hand their mails in; nobody has written yet what came of it."""
    held = Claimer(database, settings.run_lease_seconds, RetryPolicy()).claim(dict.fromkeys(ids)).claimed
    late_answers = LateAnswers(settings.database_url, senders=lambda: 1)
    sender = Sender(settings, TASKS, Clients(open_mailer(settings), open_webhook_client(settings)), late_answers)
    work = Preparer(database, settings, TASKS, RetryPolicy()).prepare(held).work
    ended = [sender.send(each) for each in work if isinstance(each, PreparedMessage)]
    sender.close()
    assert {each.outcome for each in ended} == {Accepted()}
    return ended


def _point(database: Database, url: str) -> None:
    """As if PostgreSQL went away under the connection, or came back."""
    database.close()
    database._database_url = url  # noqa: SLF001


def _deliver_all(
    connection: psycopg.Connection[tuple[object, ...]], broker: Broker, publisher: Publisher, settings: ConsumerSettings
) -> None:
    processor = Processor(settings, TASKS)
    while publisher.publish_batch(connection, 1000):
        for message_id in _pop_all(broker):
            processor.process(message_id)
    processor.close()


@contextmanager
def _pipeline(
    database_url: str, redis_url: str
) -> Iterator[tuple[psycopg.Connection[tuple[object, ...]], Broker, Publisher]]:
    """A database with waiting messages, and what moves them; the log lines of thousands of tries go nowhere."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        connect(database_url, "proof") as connection,
        closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker,
    ):
        for number in range(MESSAGES):
            add_message(connection, payload={"username": add_user(connection, f"user{number}")}, queue="critical")
        yield connection, broker, Publisher(broker, publish_lease_seconds=30, probe_timeout_seconds=60)
    structlog.reset_defaults()


def _pop_all(broker: Broker) -> list[int]:
    client = broker._client  # noqa: SLF001
    queues = [KEYS.queue(queue) for queue in ("critical", "default")]
    listed = {job for queue in queues for job in client.lrange(queue, 0, -1)}
    client.delete(*queues)
    return sorted(int(as_text(job).split("-")[1]) for job in listed)


def _let_the_next_probe_be_due(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute("UPDATE outbox_destinations SET probe_at = clock_timestamp() WHERE opened_at IS NOT NULL")


def _attempts(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("SELECT coalesce(sum(attempt), 0)::int FROM outbox").fetchone()
    assert row is not None
    return int(str(row[0]))


def _done(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("SELECT count(*)::int FROM outbox_finished WHERE status = 'done'").fetchone()
    assert row is not None
    return int(str(row[0]))
