"""Outages by policy: a server that refuses everyone makes no dead letters, and one bad address delays no other."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from consumer.model.results import Disposition
from consumer.stages.policy_outage import kept_refusals
from consumer.stages.processor import Processor
from embedded.programs.ports import LOOPBACK
from shared.database.connections import connect, transaction
from shared.outbox import dead_letters
from shared.outbox.columns import LARGEST_NUMBER
from shared.outbox.publishing import mark_probe, take_probe
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.test_postgresql_unavailable import LosesAnswers
from tests.consumer.stages.processing.world import WELCOME, Logs, World
from tests.rows import add_message, add_user
from tests.scripted_mail_server import ScriptedMailServer, Session

OUTCOME = 3
"""The number of the transaction in which an outcome is written."""

DENIED = "554 5.7.1 Relay access denied"


class Pipeline:
    """A relay and a consumer that run one step at a time, and a mail server that refuses some recipients."""

    def __init__(self, world: World, server: ScriptedMailServer, consumer: Processor, refused: set[str]) -> None:
        self.world = world
        self.server = server
        self.consumer = consumer
        self.refused = refused

    def sign_up(self, address: str, queue: str = "default", max_retries: int = 10) -> int:
        name = address.replace("@", "_at_").replace(".", "_")
        if not self.world.rows("SELECT 1 FROM users WHERE username = %s", [name]):
            add_user(self.world.connection, name, email=address)
        return add_message(self.world.connection, WELCOME, {"username": name}, queue, max_retries=max_retries)

    def work(self, message_id: int) -> Disposition:
        return self.consumer.process(message_id)

    def probe(self) -> int | None:
        """Take a probe as a relay does and process it. Return its message, or None if none is due."""
        connection = self.world.connection
        with transaction(connection):
            connection.execute("UPDATE outbox_breaker SET probe_at = now() WHERE opened_at IS NOT NULL")
            rows = take_probe(connection)
            for row in rows:
                mark_probe(connection, row.id, 60)
        for row in rows:
            self.work(row.id)
            return row.id
        return None

    def run(self, most: int) -> None:
        """Process pending messages, without waiting, until there are none or `most` were processed."""
        for _ in range(most):
            pending = self.world.rows("SELECT id FROM outbox WHERE status = 'pending' ORDER BY due_at, id")
            if not pending:
                return
            if self.is_outage:
                self.world.connection.execute(
                    "UPDATE outbox SET due_at = least(due_at, now()) WHERE status = 'pending'"
                )
                assert self.probe() is not None
            else:
                self.world.make_due(pending[0]["id"])
                self.work(pending[0]["id"])
        raise AssertionError(f"{pending} are pending after {most} steps")

    @property
    def is_outage(self) -> bool:
        return self.world.breaker()["opened_at"] is not None

    def states(self, ids: list[int]) -> list[tuple[str, int]]:
        return [(row["status"], row["attempt"]) for row in map(self.world.message, ids)]


@contextmanager
def pipeline_of(world: World, refused: set[str], answer: Callable[[str], str] = lambda _: DENIED) -> Iterator[Pipeline]:
    def rcpt(session: Session) -> str:
        _, _, domain = session.recipient.partition("@")
        is_refused = session.recipient in refused or domain in refused or "everybody" in refused
        return answer(session.recipient) if is_refused else "250 OK"

    with ScriptedMailServer({"RCPT": rcpt}) as server:
        consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), backoff_scale=0.0)
        yield Pipeline(world, server, consumer, refused)


@pytest.fixture
def pipeline(world: World) -> Iterator[Pipeline]:
    with pipeline_of(world, {"everybody"}) as opened:
        yield opened


def test_refusing_every_recipient_is_an_outage_that_spends_nothing(pipeline: Pipeline, logs: Logs) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(5)]

    dispositions = [pipeline.work(id_) for id_ in ids[:3]]

    assert dispositions == [Disposition.FAILED, Disposition.FAILED, Disposition.RELEASED]
    assert pipeline.states(ids) == [("pending", 0)] * 5
    breaker = pipeline.world.breaker()
    reason = "the mail server refuses every recipient by policy (5.7.1): refused: 554 5.7.1 Relay access denied"
    assert (breaker["opened_at"] is None, breaker["policy_code"], breaker["last_error"]) == (False, "5.7.1", reason)
    assert [
        (line["log_level"], line["error"], line["code"]) for line in logs if line["event"] == "mail_server.unavailable"
    ] == [("error", reason, "5.7.1")]
    assert "example" not in str(breaker["refusals"])


def test_probes_take_turns_and_spend_nothing(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example", "critical") for number in range(3)]
    later = [pipeline.sign_up(f"later{number}@c.example") for number in range(2)]
    for id_ in ids:
        pipeline.work(id_)

    probes = [pipeline.probe() for _ in range(10)]

    assert set(probes[:5]) == {*ids, *later}
    assert probes[5:] == probes[:5]
    assert pipeline.states([*ids, *later]) == [("pending", 0)] * 5
    assert pipeline.world.breaker()["outages"] == 11


def test_all_are_mailed_when_the_server_accepts_again(pipeline: Pipeline, logs: Logs) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(6)]
    for id_ in ids[:3]:
        pipeline.work(id_)
    pipeline.probe()
    pipeline.refused.clear()

    pipeline.run(20)

    assert pipeline.states(ids) == [("done", 1)] * 6
    assert len(pipeline.server.accepted) == 6
    breaker = pipeline.world.breaker()
    assert (breaker["opened_at"], breaker["policy_code"], breaker["refusals"]) == (None, None, [])
    assert [line["event"] for line in logs if line["event"] == "mail_server.recovered"] == ["mail_server.recovered"]


def test_a_dead_letter_of_the_outage_is_pending_again(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(3)]

    assert [pipeline.work(id_) for id_ in ids] == [Disposition.DEAD, Disposition.DEAD, Disposition.RELEASED]

    assert pipeline.states(ids) == [("pending", 0)] * 3
    assert {pipeline.world.message(id_)["generation"] for id_ in ids} == {1}


def test_several_attempts_of_one_message_are_given_back(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    for id_ in (ids[0], ids[0], ids[0], ids[1]):
        pipeline.work(id_)
    assert pipeline.states(ids) == [("pending", 3), ("pending", 1), ("pending", 0)]

    pipeline.work(ids[2])

    assert pipeline.states(ids) == [("pending", 0)] * 3


def test_attempts_are_given_back_where_generations_start_again(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    pipeline.world.connection.execute("UPDATE outbox SET generation = %s", [LARGEST_NUMBER - 1])
    for id_ in (ids[0], ids[0], ids[1]):
        pipeline.work(id_)
    assert [pipeline.world.message(id_)["generation"] for id_ in ids[:2]] == [0, LARGEST_NUMBER]

    pipeline.work(ids[2])

    assert pipeline.states(ids) == [("pending", 0)] * 3


def test_a_message_in_hand_when_the_outage_is_declared_is_released(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(4)]
    slow = ids[3]
    claimer, preparer, sender = (getattr(pipeline.consumer, f"_{name}") for name in ("claimer", "preparer", "sender"))
    [claimed] = claimer.claim({slow: None}).claimed
    [prepared] = preparer.prepare([claimed]).mails
    for id_ in ids[:3]:
        pipeline.work(id_)

    [recorded] = pipeline.consumer._recorder.record([sender.send(prepared)])  # noqa: SLF001

    assert recorded.disposition is Disposition.RELEASED
    assert pipeline.states(ids) == [("pending", 0)] * 4
    [remembered] = pipeline.world.message(slow)["failures"]
    assert (remembered["policy_code"], remembered["given_back"]) == ("5.7.1", True)


def test_one_bad_address_among_good_ones_becomes_a_dead_letter_and_delays_no_other(world: World, logs: Logs) -> None:
    with pipeline_of(world, {"bad@a.example"}) as pipeline:
        bad = pipeline.sign_up("bad@a.example", "critical", max_retries=3)
        good = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]

        pipeline.run(20)

        assert pipeline.states([bad]) == [("dead", 4)]
        assert pipeline.states(good) == [("done", 1)] * 4
        assert [line for line in logs if line["event"] == "mail_server.unavailable"] == []


@pytest.mark.parametrize("count", [3, 5])
def test_several_bad_addresses_among_good_ones_become_dead_letters(world: World, count: int) -> None:
    refused = {f"bad{number}@{'abc'[number % 3]}.example" for number in range(count)}
    with pipeline_of(world, refused) as pipeline:
        bad = [pipeline.sign_up(address, "critical", max_retries=3) for address in sorted(refused)]
        good = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]

        pipeline.run(60)

        assert {status for status, _ in pipeline.states(bad)} == {"dead"}
        assert pipeline.states(good) == [("done", 1)] * 4
        assert not pipeline.is_outage


def test_two_bad_domains_among_good_ones(world: World) -> None:
    with pipeline_of(world, {"bad1.example", "bad2.example"}) as pipeline:
        bad = [pipeline.sign_up(f"user{number}@bad{1 + number % 2}.example", max_retries=2) for number in range(6)]
        good = [pipeline.sign_up(f"user{number}@good.example") for number in range(3)]

        pipeline.run(100)

        assert {status for status, _ in pipeline.states(bad)} == {"dead"}
        assert pipeline.states(good) == [("done", 1)] * 3


def test_one_domain_alone_is_enough_when_no_other_waits(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@a.example") for number in range(4)]

    for id_ in ids[:3]:
        pipeline.work(id_)

    assert pipeline.is_outage
    assert pipeline.states(ids) == [("pending", 0)] * 4


def test_one_domain_is_not_enough_while_mail_to_another_waits(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@a.example") for number in range(4)]
    other = pipeline.sign_up("user@b.example")

    for id_ in ids:
        pipeline.work(id_)

    assert not pipeline.is_outage
    assert pipeline.states(ids) == [("pending", 1)] * 4
    pipeline.work(other)
    assert pipeline.is_outage
    assert pipeline.states([*ids, other]) == [("pending", 0)] * 5


def test_mail_to_another_domain_that_is_not_due_does_not_count(pipeline: Pipeline) -> None:
    later = pipeline.sign_up("user@b.example")
    pipeline.world.connection.execute("UPDATE outbox SET due_at = 'infinity' WHERE id = %s", [later])

    for number in range(3):
        pipeline.work(pipeline.sign_up(f"user{number}@a.example"))

    assert pipeline.is_outage


def test_refusals_of_one_recipient_or_with_different_codes_are_no_outage(world: World) -> None:
    codes = {"one": "5.7.1", "two": "5.7.26"}
    with pipeline_of(
        world, {"everybody"}, lambda address: f"550 {codes.get(address.partition('@')[0], '5.7.1')} no"
    ) as pipeline:
        for address in ("one@a.example", "one@a.example", "one@a.example", "two@b.example", "two@c.example"):
            pipeline.work(pipeline.sign_up(address))

        assert not pipeline.is_outage
        assert len(kept_refusals(world.breaker()["refusals"])) == 5


def test_an_accepted_mail_in_between_resets_the_count(world: World) -> None:
    with pipeline_of(world, {"bad.example", "worse.example"}) as pipeline:
        bad = [pipeline.sign_up(f"user{number}@{('bad', 'worse')[number % 2]}.example") for number in range(4)]
        pipeline.work(bad[0])
        pipeline.work(bad[1])
        pipeline.work(pipeline.sign_up("good@good.example"))
        pipeline.work(bad[2])
        pipeline.work(bad[3])

        assert not pipeline.is_outage
        assert pipeline.states(bad) == [("pending", 1)] * 4


def test_a_message_that_an_operator_retried_or_discarded_meanwhile_is_left_alone(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(3)]
    pipeline.work(ids[0])
    pipeline.work(ids[1])
    assert dead_letters.retry(pipeline.world.connection, ids[0])
    assert dead_letters.discard(pipeline.world.connection, ids[1], "a test")

    pipeline.work(ids[2])

    assert pipeline.is_outage
    assert pipeline.states(ids) == [("pending", 0), ("discarded", 1), ("pending", 0)]
    assert pipeline.world.message(ids[0])["generation"] == 1


def test_a_message_that_failed_for_another_reason_since_then_keeps_its_attempts_spent(world: World) -> None:
    answers = {"first@a.example": [DENIED, "550 5.1.1 nobody of that name"]}
    with pipeline_of(world, {"everybody"}, lambda address: answers.get(address, [DENIED]).pop(0)) as pipeline:
        first = pipeline.sign_up("first@a.example")
        pipeline.work(first)
        pipeline.work(first)
        assert pipeline.states([first]) == [("dead", 2)]
        for number in range(2):
            answers[f"user{number}@b.example"] = [DENIED]
            pipeline.work(pipeline.sign_up(f"user{number}@b.example"))

        assert pipeline.states([first]) == [("dead", 2)]


def test_an_outage_by_policy_does_not_end_with_another_answer(world: World) -> None:
    answers: list[str] = []
    with pipeline_of(world, {"everybody"}, lambda _: answers.pop(0) if answers else DENIED) as pipeline:
        ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]
        for id_ in ids[:3]:
            pipeline.work(id_)
        answers.append("550 5.1.1 nobody of that name")

        probe = pipeline.probe()

        assert probe == ids[3]
        assert pipeline.states([ids[3]]) == [("dead", 1)]
        assert pipeline.is_outage
        assert pipeline.probe() in ids[:3]


def test_a_refusal_whose_commit_was_unanswered_is_noted_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    database = LosesAnswers(pipeline.world.url, OUTCOME)
    server = SmtpServer("smtp", LOOPBACK, pipeline.server.port)
    loses_answer = pipeline.world.consumer(database=database, smtp_server=server)
    assert loses_answer.process(ids[0]) is Disposition.FAILED
    pipeline.work(ids[1])
    assert [each.spent for each in kept_refusals(pipeline.world.breaker()["refusals"])] == [1, 1]

    pipeline.work(ids[2])

    assert pipeline.states(ids) == [("pending", 0)] * 3


def test_refusals_of_concurrent_workers_are_all_noted(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(6)]
    server = SmtpServer("smtp", LOOPBACK, pipeline.server.port)
    consumers = [pipeline.world.consumer(smtp_server=server) for _ in ids]

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda consumer, id_: consumer.process(id_), consumers, ids))

    assert pipeline.is_outage
    assert pipeline.states(ids) == [("pending", 0)] * 6


def test_a_locked_row_gets_its_attempt_back_later(pipeline: Pipeline) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]
    pipeline.work(ids[0])
    pipeline.work(ids[1])
    with connect(pipeline.world.settings.database_url, "other_session") as other_session, transaction(other_session):
        other_session.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [ids[0]])
        pipeline.work(ids[2])
    assert pipeline.states(ids[:3]) == [("pending", 1), ("pending", 0), ("pending", 0)]

    pipeline.probe()

    assert pipeline.states(ids) == [("pending", 0)] * 4


def test_a_server_that_refuses_our_sender_is_probed_by_each_message_in_turn(world: World, logs: Logs) -> None:
    refuses = [True]
    answer = "550 5.1.8 bad sender's domain"
    with ScriptedMailServer({"MAIL": lambda _: answer if refuses else "250 OK"}) as server:
        consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), backoff_scale=0.0)
        pipeline = Pipeline(world, server, consumer, set())
        ids = [pipeline.sign_up(f"user{number}@a.example", ("critical", "default")[number % 2]) for number in range(4)]
        pipeline.work(ids[0])

        probes = [pipeline.probe() for _ in range(8)]
        assert (set(probes[:4]), probes[4:]) == (set(ids), probes[:4])
        assert pipeline.states(ids) == [("pending", 0)] * 4
        refuses.clear()
        pipeline.run(10)

        assert pipeline.states(ids) == [("done", 1)] * 4
        assert [answer in line["error"] for line in logs if line["event"] == "mail_server.unavailable"] == [True]


def test_unknown_content_of_the_breakers_row_is_ignored(pipeline: Pipeline) -> None:
    for stored in ("7", '["x"]', '[{"a": 1}]'):
        pipeline.world.connection.execute("UPDATE outbox_breaker SET refusals = %s::jsonb", [stored])

        assert pipeline.work(pipeline.sign_up(f"user{len(stored)}@a.example")) is Disposition.FAILED
