"""A process is killed once at every crash point of relay and consumer, and the message still arrives."""

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final, LiteralString

import pytest
from psycopg.types.json import Jsonb

from embedded.programs.ports import LOOPBACK
from embedded.programs.program import Program
from outbox_relay.broker import open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from shared.webhooks import endpoints
from shared.webhooks.events import USER_SIGNED_UP
from shared.webhooks.signing import new_secret
from tests.crash.givens import Given
from tests.crash.parallel import run_in_parallel
from tests.crash.points import POINTS, SHORT, Point
from tests.crash.scene import NOTE, OUTBOX_WORKER, STOCK_WORKER, Scene, Stage
from tests.rows import message
from tests.servers.scripted_endpoint import ScriptedEndpoint, answering
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

TIMEOUT_SECONDS: Final = 60.0

TASKS_WITH_EFFECTS: Final = {"a message that is done in its transaction", "a message with a handler"}

WEBHOOK: Final[Given] = "a message for a webhook endpoint"

OPEN_BREAKER: Final[LiteralString] = (
    "INSERT INTO outbox_destinations (name, opened_at, probe_at) VALUES ('mail', now(), now())"
    " ON CONFLICT (name) DO UPDATE SET opened_at = excluded.opened_at, probe_at = excluded.probe_at"
)

PREPARED_BY_SQL: Final[dict[Given, LiteralString]] = {
    "a message that came back": "UPDATE outbox SET generation = 1",
    "a dead worker's claim": """
        UPDATE outbox
           SET status = 'running', attempt = 1, claim_token = gen_random_uuid(), claimed_at = now(), lease_until = now()
        """,
    "a message that met silence and a mail server that does not answer yet": """
        UPDATE outbox SET failures = '[{"unanswered": true}]'
        """,
    "an address that is verified already": "UPDATE users SET is_email_verified = true",
    "an open breaker": OPEN_BREAKER,
    "a limited mail server": """
        INSERT INTO outbox_destinations (name, max_per_second, tokens, max_in_flight) VALUES ('mail', 1000, 1, 1)
            ON CONFLICT (name) DO UPDATE SET max_per_second = 1000, tokens = 1, max_in_flight = 1
    """,
    "an open breaker and a mail server that does not answer": OPEN_BREAKER,
    "accounts that were not verified in time": """
        INSERT INTO users (username, email, full_name, hashed_password, created_at, email_set_at)
        SELECT name, name || '@example.com', '', '', now() - interval '9 days', corrected_at
          FROM (VALUES ('gone', NULL), ('corrected', now())) AS account (name, corrected_at);
        INSERT INTO outbox (task, payload, status, attempt, last_error, failures)
        VALUES ('task:send_verify_email', '{"username": "gone"}', 'dead', 1, '550 5.1.1', '[{"about_recipient": true}]')
        """,
    "a message that is done in its transaction": "UPDATE outbox SET task = 'crash:add_mark'",
    "a message with a handler": "UPDATE outbox SET task = 'crash:append_mark'",
    "old history": """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT 0, task, payload, queue, 'done', due_at, 0, 1, max_retries, failures, created_at,
               now() - interval '1 year'
          FROM outbox
        """,
}


@pytest.fixture(scope="module")
def scenes(request: pytest.FixtureRequest, stage: Stage) -> Iterator[dict[str, Future[None]]]:
    with (
        contextlib.closing(Lanes(stage)) as lanes,
        run_in_parallel(request, lambda key: run(stage, lanes, POINTS[key])) as futures,
    ):
        yield futures


@pytest.mark.parametrize("key", [pytest.param(key, marks=() if key in SHORT else pytest.mark.long) for key in POINTS])
def test_a_message_arrives_although_a_process_died(key: str, scenes: dict[str, Future[None]]) -> None:
    scenes[key].result()


class Lanes:
    """Scenes with a running relay. Each is used for several crash points, since starting a relay takes time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._idle: list[tuple[contextlib.ExitStack, Scene, Program]] = []

    @contextmanager
    def scene(self) -> Iterator[Scene]:
        try:
            stack, scene, relay = self._idle.pop()
        except IndexError:
            stack = contextlib.ExitStack()
            scene = stack.enter_context(self._stage.scene())
            relay = scene.start_relay()
        with stack:
            yield scene
            scene.clear(but=relay)
            self._idle.append((stack.pop_all(), scene, relay))

    def close(self) -> None:
        for stack, _, _ in self._idle:
            stack.close()


def run(stage: Stage, lanes: Lanes, point: Point) -> None:
    """Kill the point's program there, start its successors, and check the message."""
    with (
        ScriptedEndpoint(answering(204)) as endpoint,
        stage.scene() if point.program == "relay" else lanes.scene() as scene,
    ):
        id_ = given(scene, point)
        if point.given == WEBHOOK:
            send_to(scene, endpoint)
        victim = start_victim(scene, point)
        wait_for_death(scene, victim, point)
        repair(scene, point)
        start_successors(scene, point)
        scene.wait_for_quiet(TIMEOUT_SECONDS)
        if point.given == WEBHOOK:
            check_webhook(scene, point, id_, endpoint)
        else:
            check(scene, point, id_)


def given(scene: Scene, point: Point) -> int:
    """Prepare one message in the state that the point needs, and return its id."""
    [id_] = scene.sign_up()
    if point.given in PREPARED_BY_SQL:
        scene.connection.execute(PREPARED_BY_SQL[point.given])
    match point.given:
        case "a lost job":
            publish(scene)
            scene.take_jobs_away()
        case "a long backlog":
            publish(scene)
        case "an emptied Redis":
            publish(scene)
            scene.empty_redis()
        case "an unreachable mail server":
            scene.mailbox.stop()
        case "a refusing mail server":
            scene.mailbox.set_fault("data-451")
        case "a message that met silence and a mail server that does not answer yet":
            scene.mailbox.set_fault("data-hang")
        case "an open breaker and a mail server that does not answer":
            scene.mailbox.set_fault("drop-after-accept")
    return id_


def publish(scene: Scene) -> None:
    """Publish the pending messages with a lease that ends at once."""
    with contextlib.closing(open_broker(scene.settings["RQ_REDIS_URL"], scene.settings["RQ_KEY_PREFIX"], 3)) as broker:
        publisher = Publisher(broker, publish_lease_seconds=0.01, probe_timeout_seconds=3)
        assert publisher.publish_batch(scene.connection, 10) == 1


def start_victim(scene: Scene, point: Point) -> Program:
    """Start the program that is to die."""
    options = ["--die", point.key, "--note", str(scene.folder / NOTE)]
    if point.program == "relay":
        return scene.start_relay(*options)
    env = dict(worker_class(point))
    if point.given == "a missing setting":
        env["SECRET_KEY"] = ""
    return scene.start("victim", "worker", *options, env=env)


def wait_for_death(scene: Scene, victim: Program, point: Point) -> None:
    note = scene.folder / NOTE
    if point.whose == "horse":
        wait_until(lambda: note.exists() and note.read_text(), TIMEOUT_SECONDS, f"the horse to reach {point.key}")
        horse = int(note.read_text())
        wait_until(
            lambda: not Path(f"/proc/{horse}").exists(), TIMEOUT_SECONDS, "the horse to die and its parent to notice"
        )
        assert (victim.running, victim.pid != horse) == (True, True)
        return
    wait_until(lambda: not victim.running, TIMEOUT_SECONDS, f"the death of {point.key}")
    assert (victim.exit_code, note.exists()) == (-9, True)


def repair(scene: Scene, point: Point) -> None:
    """Repair the mail server."""
    scene.mailbox.set_fault(None)
    if point.given == "an unreachable mail server":
        scene.mailbox.start()


def start_successors(scene: Scene, point: Point) -> None:
    """Start normal programs in place of those that died."""
    if point.program == "relay":
        scene.start_relay()
    if point.whose != "horse":
        scene.start("worker", "worker", env=worker_class(point))


def worker_class(point: Point) -> dict[str, str]:
    return dict(STOCK_WORKER if point.program == "stock worker" else OUTBOX_WORKER)


def send_to(scene: Scene, endpoint: ScriptedEndpoint) -> None:
    """Make the message an event for this endpoint."""
    url = f"http://{LOOPBACK}:{endpoint.port}/"
    id_ = endpoints.add(scene.connection, "receiver", url, [USER_SIGNED_UP], new_secret())
    scene.connection.execute(
        "UPDATE outbox SET task = %s, payload = %s, destination = %s",
        ["task:deliver_webhook", Jsonb({"endpoint_id": id_, "body": "{}"}), f"webhook:{id_}"],
    )


def check_webhook(scene: Scene, point: Point, id_: int, endpoint: ScriptedEndpoint) -> None:
    """Check that the event has arrived, and that its copies have one name."""
    row = message(scene.connection, id_)
    assert (row["status"], row["attempt"]) == ("done", point.attempt)
    names = [re.findall(rb"(?i)webhook-id: (\S+)", request) for request in endpoint.requests]
    assert names == [[str(row["uid"]).encode()]] * len(names)
    assert len(names) in point.mails


def check(scene: Scene, point: Point, id_: int) -> None:
    row = message(scene.connection, id_)
    if point.given in TASKS_WITH_EFFECTS:
        assert (row["status"], row["attempt"]) == ("done", point.attempt)
        assert scene.count("full_name LIKE '%!' AND full_name NOT LIKE '%!%!'", table="users") == 1
        assert (scene.count("status <> 'done'", table="outbox_finished"), scene.count(table="outbox")) == (0, 0)
        return
    is_wanted = point.mails != (0,)
    assert (row["status"], row["attempt"]) == ("done" if is_wanted else "discarded", point.attempt)
    mails = scene.mails_of(id_)
    assert len(mails) in point.mails
    assert {mail.recipients for mail in mails} <= {(f"{row['payload']['username']}@example.com",)}
    assert len({link for mail in mails for link in mail.links}) == is_wanted
    assert len(scene.mailbox.mails()) == len(mails)
    assert scene.count(table="verify_emails") == is_wanted
    assert scene.count("opened_at IS NOT NULL", table="outbox_destinations") == 0
    wait_until(
        lambda: scene.count("id = 0", table="outbox_finished") == 0, TIMEOUT_SECONDS, "the old history to be pruned"
    )
    if point.given == "accounts that were not verified in time":
        wait_until(
            lambda: scene.count("username = 'gone'", table="users") == 0, TIMEOUT_SECONDS, "an account to be deleted"
        )
        assert scene.count("username = 'corrected'", table="users") == 1
        assert scene.count("status = 'discarded' AND payload ->> 'username' = 'gone'", table="outbox_finished") == 1
    assert scene.count(table="outbox") == 0
