"""Outages by policy: a server that refuses every recipient makes no dead letters and spends no attempts."""

from consumer.model.results import Disposition
from embedded.programs.ports import LOOPBACK
from shared.database.connections import connect, transaction
from shared.outbox.columns import LARGEST_NUMBER
from shared.outbox.operations import dead_letters
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.mail_server.policy_pipeline import DENIED, Pipeline, pipeline_of
from tests.consumer.stages.processing.world import Logs, World
from tests.servers.scripted_mail_server import ScriptedMailServer


def test_refusing_every_recipient_is_an_outage_that_spends_nothing(pipeline: Pipeline, logs: Logs) -> None:
    ids = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(5)]

    dispositions = [pipeline.work(id_) for id_ in ids[:3]]

    assert dispositions == [Disposition.FAILED, Disposition.FAILED, Disposition.RELEASED]
    assert pipeline.states(ids) == [("pending", 0)] * 5
    breaker = pipeline.world.breaker()
    reason = "the mail server refuses every recipient by policy (5.7.1): refused: 554 5.7.1 Relay access denied"
    assert (breaker["opened_at"] is None, breaker["policy_code"], breaker["last_error"]) == (False, "5.7.1", reason)
    assert [
        (line["log_level"], line["error"], line["code"]) for line in logs if line["event"] == "destination.unavailable"
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
    assert [line["event"] for line in logs if line["event"] == "destination.recovered"] == ["destination.recovered"]


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
    claimer, preparer, place = (getattr(pipeline.consumer, f"_{name}") for name in ("claimer", "preparer", "place"))
    [claimed] = claimer.claim({slow: None}).claimed
    [prepared] = preparer.prepare([claimed]).work
    for id_ in ids[:3]:
        pipeline.work(id_)

    [recorded] = pipeline.consumer._recorder.record(place.carry_out(prepared).results)  # noqa: SLF001

    assert recorded.disposition is Disposition.RELEASED
    assert pipeline.states(ids) == [("pending", 0)] * 4
    [remembered] = pipeline.world.message(slow)["failures"]
    assert (remembered["policy_code"], remembered["given_back"]) == ("5.7.1", True)


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
        assert [answer in line["error"] for line in logs if line["event"] == "destination.unavailable"] == [True]
