"""A mail server that refuses everybody by policy kills nobody; one bad address holds nobody up."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from consumer.model.results import Disposition
from consumer.stages import processor
from consumer.stages.policy_outage import kept_refusals
from consumer.stages.processor import Processor
from embedded.programs.ports import LOOPBACK
from shared.database.connections import connect, transaction
from shared.outbox import dead_letters
from shared.outbox.columns import LARGEST_NUMBER
from shared.outbox.publishing import mark_probe, take_probe
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.test_postgresql_away import LosesAnswers
from tests.consumer.stages.processing.world import WELCOME, Logs, World
from tests.rows import add_message, add_user
from tests.scripted_mail_server import ScriptedMailServer, Session

OUTCOME = 3
"""The transaction of a message in which its outcome is written."""

DENIED = "554 5.7.1 Relay access denied"


class Road:
    """A relay and a consumer, one step at a time, and a mail server that refuses some."""

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
        """What a relay does when it is time for a probe; None when none is due."""
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
        """Work on all that is pending until nothing is, as if each wait were over; with `most` steps at the most."""
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
def road_of(world: World, refused: set[str], answer: Callable[[str], str] = lambda _: DENIED) -> Iterator[Road]:
    def rcpt(session: Session) -> str:
        _, _, domain = session.recipient.partition("@")
        is_refused = session.recipient in refused or domain in refused or "everybody" in refused
        return answer(session.recipient) if is_refused else "250 OK"

    with ScriptedMailServer({"RCPT": rcpt}) as server:
        consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), backoff_scale=0.0)
        yield Road(world, server, consumer, refused)


@pytest.fixture
def road(world: World) -> Iterator[Road]:
    with road_of(world, {"everybody"}) as opened:
        yield opened


def test_refusing_everybody_is_an_outage_that_spends_nothing(road: Road, logs: Logs) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(5)]

    verdicts = [road.work(id_) for id_ in ids[:3]]

    assert verdicts == [Disposition.FAILED, Disposition.FAILED, Disposition.RELEASED]
    assert road.states(ids) == [("pending", 0)] * 5
    breaker = road.world.breaker()
    reason = "the mail server refuses every recipient by policy (5.7.1): refused: 554 5.7.1 Relay access denied"
    assert (breaker["opened_at"] is None, breaker["policy_code"], breaker["last_error"]) == (False, "5.7.1", reason)
    assert [
        (line["log_level"], line["error"], line["code"]) for line in logs if line["event"] == "mail_server.unavailable"
    ] == [("error", reason, "5.7.1")]
    assert "example" not in str(breaker["refusals"])


def test_probes_take_turns_and_spend_nothing(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example", "critical") for number in range(3)]
    later = [road.sign_up(f"later{number}@c.example") for number in range(2)]
    for id_ in ids:
        road.work(id_)

    probes = [road.probe() for _ in range(10)]

    assert set(probes[:5]) == {*ids, *later}
    assert probes[5:] == probes[:5]
    assert road.states([*ids, *later]) == [("pending", 0)] * 5
    assert road.world.breaker()["outages"] == 11


def test_all_are_mailed_when_the_server_accepts_again(road: Road, logs: Logs) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(6)]
    for id_ in ids[:3]:
        road.work(id_)
    road.probe()
    road.refused.clear()

    road.run(20)

    assert road.states(ids) == [("done", 1)] * 6
    assert len(road.server.accepted) == 6
    breaker = road.world.breaker()
    assert (breaker["opened_at"], breaker["policy_code"], breaker["refusals"]) == (None, None, [])
    assert [line["event"] for line in logs if line["event"] == "mail_server.recovered"] == ["mail_server.recovered"]


def test_a_message_that_died_of_it_lives_again(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(3)]

    assert [road.work(id_) for id_ in ids] == [Disposition.DEAD, Disposition.DEAD, Disposition.RELEASED]

    assert road.states(ids) == [("pending", 0)] * 3
    assert {road.world.message(id_)["generation"] for id_ in ids} == {1}


def test_several_attempts_of_one_message_are_given_back(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    for id_ in (ids[0], ids[0], ids[0], ids[1]):
        road.work(id_)
    assert road.states(ids) == [("pending", 3), ("pending", 1), ("pending", 0)]

    road.work(ids[2])

    assert road.states(ids) == [("pending", 0)] * 3


def test_attempts_are_given_back_where_generations_begin_anew(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    road.world.connection.execute("UPDATE outbox SET generation = %s", [LARGEST_NUMBER - 1])
    for id_ in (ids[0], ids[0], ids[1]):
        road.work(id_)
    assert [road.world.message(id_)["generation"] for id_ in ids[:2]] == [0, LARGEST_NUMBER]

    road.work(ids[2])

    assert road.states(ids) == [("pending", 0)] * 3


def test_what_is_in_flight_when_it_is_declared_is_released(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(4)]
    slow = ids[3]
    claimer, preparer, sender = (getattr(road.consumer, f"_{name}") for name in ("claimer", "preparer", "sender"))
    [held] = claimer.claim({slow: None}).claimed
    [ready] = preparer.prepare([held]).mails
    for id_ in ids[:3]:
        road.work(id_)

    [settled] = road.consumer._recorder.record([sender.send(ready)])  # noqa: SLF001

    assert settled.disposition is Disposition.RELEASED
    assert road.states(ids) == [("pending", 0)] * 4
    [remembered] = road.world.message(slow)["failures"]
    assert (remembered["policy_code"], remembered["given_back"]) == ("5.7.1", True)


def test_one_bad_address_among_good_ones_dies_and_holds_nobody_up(world: World, logs: Logs) -> None:
    with road_of(world, {"bad@a.example"}) as road:
        bad = road.sign_up("bad@a.example", "critical", max_retries=3)
        good = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]

        road.run(20)

        assert road.states([bad]) == [("dead", 4)]
        assert road.states(good) == [("done", 1)] * 4
        assert [line for line in logs if line["event"] == "mail_server.unavailable"] == []


@pytest.mark.parametrize("count", [3, 5])
def test_several_bad_addresses_among_good_ones_all_end(world: World, count: int) -> None:
    refused = {f"bad{number}@{'abc'[number % 3]}.example" for number in range(count)}
    with road_of(world, refused) as road:
        bad = [road.sign_up(address, "critical", max_retries=3) for address in sorted(refused)]
        good = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]

        road.run(60)

        assert {status for status, _ in road.states(bad)} == {"dead"}
        assert road.states(good) == [("done", 1)] * 4
        assert not road.is_outage


def test_two_bad_domains_among_good_ones(world: World) -> None:
    with road_of(world, {"bad1.example", "bad2.example"}) as road:
        bad = [road.sign_up(f"user{number}@bad{1 + number % 2}.example", max_retries=2) for number in range(6)]
        good = [road.sign_up(f"user{number}@good.example") for number in range(3)]

        road.run(100)

        assert {status for status, _ in road.states(bad)} == {"dead"}
        assert road.states(good) == [("done", 1)] * 3


def test_one_domain_alone_is_enough_when_no_other_waits(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@a.example") for number in range(4)]

    for id_ in ids[:3]:
        road.work(id_)

    assert road.is_outage
    assert road.states(ids) == [("pending", 0)] * 4


def test_one_domain_is_not_enough_while_mail_to_another_waits(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@a.example") for number in range(4)]
    other = road.sign_up("user@b.example")

    for id_ in ids:
        road.work(id_)

    assert not road.is_outage
    assert road.states(ids) == [("pending", 1)] * 4
    road.work(other)
    assert road.is_outage
    assert road.states([*ids, other]) == [("pending", 0)] * 5


def test_mail_to_another_domain_that_is_not_due_does_not_count(road: Road) -> None:
    later = road.sign_up("user@b.example")
    road.world.connection.execute("UPDATE outbox SET due_at = 'infinity' WHERE id = %s", [later])

    for number in range(3):
        road.work(road.sign_up(f"user{number}@a.example"))

    assert road.is_outage


def test_refusals_of_one_recipient_or_with_different_codes_are_no_outage(world: World) -> None:
    codes = {"one": "5.7.1", "two": "5.7.26"}
    with road_of(
        world, {"everybody"}, lambda address: f"550 {codes.get(address.partition('@')[0], '5.7.1')} no"
    ) as road:
        for address in ("one@a.example", "one@a.example", "one@a.example", "two@b.example", "two@c.example"):
            road.work(road.sign_up(address))

        assert not road.is_outage
        assert len(kept_refusals(world.breaker()["refusals"])) == 5


def test_an_accepted_mail_in_between_makes_the_next_ones_count_anew(world: World) -> None:
    with road_of(world, {"bad.example", "worse.example"}) as road:
        bad = [road.sign_up(f"user{number}@{('bad', 'worse')[number % 2]}.example") for number in range(4)]
        road.work(bad[0])
        road.work(bad[1])
        road.work(road.sign_up("good@good.example"))
        road.work(bad[2])
        road.work(bad[3])

        assert not road.is_outage
        assert road.states(bad) == [("pending", 1)] * 4


def test_an_operator_who_retried_or_discarded_meanwhile_is_obeyed(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example", max_retries=0) for number in range(3)]
    road.work(ids[0])
    road.work(ids[1])
    assert dead_letters.retry(road.world.connection, ids[0])
    assert dead_letters.discard(road.world.connection, ids[1], "a test")

    road.work(ids[2])

    assert road.is_outage
    assert road.states(ids) == [("pending", 0), ("discarded", 1), ("pending", 0)]
    assert road.world.message(ids[0])["generation"] == 1


def test_a_message_that_failed_otherwise_since_then_keeps_what_it_spent(world: World) -> None:
    answers = {"first@a.example": [DENIED, "550 5.1.1 nobody of that name"]}
    with road_of(world, {"everybody"}, lambda address: answers.get(address, [DENIED]).pop(0)) as road:
        first = road.sign_up("first@a.example")
        road.work(first)
        road.work(first)
        assert road.states([first]) == [("dead", 2)]
        for number in range(2):
            answers[f"user{number}@b.example"] = [DENIED]
            road.work(road.sign_up(f"user{number}@b.example"))

        assert road.states([first]) == [("dead", 2)]


def test_an_outage_by_policy_does_not_end_with_another_answer(world: World) -> None:
    answers: list[str] = []
    with road_of(world, {"everybody"}, lambda _: answers.pop(0) if answers else DENIED) as road:
        ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]
        for id_ in ids[:3]:
            road.work(id_)
        answers.append("550 5.1.1 nobody of that name")

        probe = road.probe()

        assert probe == ids[3]
        assert road.states([ids[3]]) == [("dead", 1)]
        assert road.is_outage
        assert road.probe() in ids[:3]


def test_a_refusal_whose_commit_was_not_answered_is_noted_once(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(3)]
    monkeypatch.setattr(processor, "Database", LosesAnswers)
    monkeypatch.setattr(LosesAnswers, "lost", (OUTCOME,))
    nobody_answers = road.world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, road.server.port))
    assert nobody_answers.process(ids[0]) is Disposition.FAILED
    road.work(ids[1])
    assert [each.spent for each in kept_refusals(road.world.breaker()["refusals"])] == [1, 1]

    road.work(ids[2])

    assert road.states(ids) == [("pending", 0)] * 3


def test_two_workers_that_are_refused_at_once_note_one_after_the_other(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(6)]
    server = SmtpServer("smtp", LOOPBACK, road.server.port)
    consumers = [road.world.consumer(smtp_server=server) for _ in ids]

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda consumer, id_: consumer.process(id_), consumers, ids))

    assert road.is_outage
    assert road.states(ids) == [("pending", 0)] * 6


def test_a_row_that_somebody_holds_gets_its_attempt_back_later(road: Road) -> None:
    ids = [road.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]
    road.work(ids[0])
    road.work(ids[1])
    with connect(road.world.settings.database_url, "somebody") as somebody, transaction(somebody):
        somebody.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [ids[0]])
        road.work(ids[2])
    assert road.states(ids[:3]) == [("pending", 1), ("pending", 0), ("pending", 0)]

    road.probe()

    assert road.states(ids) == [("pending", 0)] * 4


def test_a_server_that_refuses_our_sender_is_tried_by_each_in_turn(world: World, logs: Logs) -> None:
    refuses = [True]
    answer = "550 5.1.8 bad sender's domain"
    with ScriptedMailServer({"MAIL": lambda _: answer if refuses else "250 OK"}) as server:
        consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), backoff_scale=0.0)
        road = Road(world, server, consumer, set())
        ids = [road.sign_up(f"user{number}@a.example", ("critical", "default")[number % 2]) for number in range(4)]
        road.work(ids[0])

        probes = [road.probe() for _ in range(8)]
        assert (set(probes[:4]), probes[4:]) == (set(ids), probes[:4])
        assert road.states(ids) == [("pending", 0)] * 4
        refuses.clear()
        road.run(10)

        assert road.states(ids) == [("done", 1)] * 4
        assert [answer in line["error"] for line in logs if line["event"] == "mail_server.unavailable"] == [True]


def test_nothing_that_stands_on_the_breakers_row_stops_the_record(road: Road) -> None:
    for stored in ("7", '["x"]', '[{"a": 1}]'):
        road.world.connection.execute("UPDATE outbox_breaker SET refusals = %s::jsonb", [stored])

        assert road.work(road.sign_up(f"user{len(stored)}@a.example")) is Disposition.FAILED
