"""A row that the schema accepts and a value at a key of Redis stop nothing and hide nothing, whatever they are.

A few examples in the suite; FOREIGN_EXAMPLES asks for more (`make proof`). `--hypothesis-seed` repeats a run, and a
failure prints how it is reproduced.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from consumer.stages.processor import Processor
from consumer.threaded.queue import WorkerBroker
from embedded.mail.catcher import MailCatcher
from outbox_relay.broker import open_broker
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from outbox_relay.metrics.relay_metrics import RelayMetrics
from shared.outbox import reaping
from shared.outbox.messages import QUEUES, SendWelcomeEmail
from tests.consumer.stages.processing.world import World, world_of
from tests.foreign.values import ROWS, SHARED_KEYS, VALUES, Row, insert, plant
from tests.outbox_relay.commands.running import run
from tests.programs.api_service import api_service
from tests.redis_keys import KEYS
from tests.rows import add_message, message
from tests.settings.relay import relay_settings

TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own
EXAMPLES = int(os.environ.get("FOREIGN_EXAMPLES", "3"))

LISTS = {name: KEYS.queue(name) for name in QUEUES}


@dataclass
class Place:
    """Servers that others write to, and everything of ours that looks at them."""

    world: World
    redis: Redis
    relay: Relay
    broker: WorkerBroker
    consumer: Processor
    operator: FlaskClient
    metrics: RelayMetrics

    def empty(self) -> None:
        self.world.connection.execute("TRUNCATE outbox, outbox_finished, verify_emails RESTART IDENTITY")
        self.world.connection.execute("UPDATE outbox_destinations SET opened_at = NULL, probe_at = NULL")
        self.redis.delete(*SHARED_KEYS, *self.redis.keys(KEYS.job("*")))

    def work(self) -> None:
        """Do what relay and worker do."""
        self.relay.run_once()
        reaping.reap_running(self.world.connection, 100, grace_seconds=0)
        self.relay.run_once()
        while jobs := self.broker.pop(100):
            for job in jobs:
                message_id = self.broker.message_id(job)
                if message_id is None:
                    self.broker.move_to_failed(job)
                else:
                    self.consumer.process(message_id)
            self.broker.finish(jobs, [])

    def look(self, ids: list[int]) -> None:
        """Run every command and open every page that shows messages."""
        for id_ in ids:
            shows("show", id_)
            shows("show", id_, "--json")
            assert f"Message {id_}" in self.operator.get(f"/ops/message?id={id_}").text
        listed = shows("list", "--json")
        assert all(f'"id": {id_}' in listed for id_ in ids)
        for arguments in (("list",), ("dead",), ("dead", "--json"), ("stats",), ("stats", "--json")):
            shows(*arguments)
        # It names what it finds; what it looks at does not end it.
        assert run("doctor", "--json").stdout.startswith("[")
        for path in ("/ops", "/ops/snapshot", "/ops/dead-letters", "/metrics", "/readyz"):
            assert self.operator.get(path).status_code == 200, path
        assert b"outbox_postgresql_up 1.0" in generate_latest(self.metrics.registry)

    def order(self, ids: list[int]) -> None:
        """Run every command of an operator on the messages."""
        shows("retry", "--all")
        for id_ in ids:
            ended = run("discard", id_, "--reason", "a test")
            assert ended.exit_code == 0 or "only a dead or pending message" in ended.output, ended.output
        now = "2100-01-01"
        shows("replay", "--task", SendWelcomeEmail.task, "--since", "2000-01-01", "--until", now, "--yes")
        shows("prune", "--older-than-days", "0", "--yes")


def shows(*arguments: object) -> str:
    ended = run(*arguments)
    assert ended.exit_code == 0, (arguments, ended.output, ended.exception)
    return ended.stdout


@pytest.fixture
def place(database_url: str, redis_url: str, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in {
        "DATABASE_URL": database_url,
        "RQ_REDIS_URL": redis_url,
        "RQ_KEY_PREFIX": RQ_KEY_PREFIX,
    }.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        world = stack.enter_context(world_of(database_url, mailbox.smtp_port))
        redis = stack.enter_context(Redis.from_url(redis_url))
        service = stack.enter_context(api_service(database_url, ops_token=TOKEN))
        operator = service.client()
        operator.post("/ops/login", data={"token": TOKEN})
        relay = Relay(relay_settings(database_url, redis_url), open_broker(redis_url, RQ_KEY_PREFIX, 60), WakeupPipe())
        broker = WorkerBroker(redis, KEYS, QUEUES, "test")
        metrics = RelayMetrics(database_url)
        yield Place(world, redis, stack.enter_context(closing(relay)), broker, world.consumer(), operator, metrics)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(rows=st.lists(ROWS, min_size=1, max_size=12), values=VALUES)
def test_pipeline_commands_and_console_work_whatever_others_write(
    place: Place, rows: list[Row], values: dict[str, tuple[str, bytes]]
) -> None:
    place.empty()
    connection: psycopg.Connection[Any] = place.world.connection
    inserted = [id_ for row in rows if (id_ := insert(connection, row)) is not None]
    note(f"accepted: {len(inserted)} of {len(rows)}")
    plant(place.redis, values)
    ours = {queue: add_message(connection, queue=queue) for queue in QUEUES}
    blocked = {queue for queue, key in LISTS.items() if place.redis.type(key) not in {b"list", b"none"}}

    place.look(inserted)
    place.work()

    states = {queue: message(connection, id_)["status"] for queue, id_ in ours.items()}
    assert states == {queue: "pending" if queue in blocked else "done" for queue in QUEUES}
    place.redis.delete(*(LISTS[queue] for queue in blocked or ["default"]))
    place.look(inserted)
    place.order(inserted)
    place.look([id_ for id_ in inserted if connection.execute("SELECT FROM outbox WHERE id = %s", [id_]).rowcount])
