"""Which refusals by policy count as an outage: bad addresses become dead letters and delay no other message."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from consumer.model.results import Disposition
from consumer.stages.recording.policy_outage import kept_refusals
from embedded.programs.ports import LOOPBACK
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.mail_server.policy_pipeline import Pipeline, pipeline_of
from tests.consumer.stages.processing.postgresql.lost_answers import LosesAnswers
from tests.consumer.stages.processing.world import Logs, World

OUTCOME = 3
"""The number of the transaction in which an outcome is written."""


def test_one_bad_address_among_good_ones_becomes_a_dead_letter_and_delays_no_other(world: World, logs: Logs) -> None:
    with pipeline_of(world, {"bad@a.example"}) as pipeline:
        bad = pipeline.sign_up("bad@a.example", "critical", max_retries=3)
        good = [pipeline.sign_up(f"user{number}@{'ab'[number % 2]}.example") for number in range(4)]

        pipeline.run(20)

        assert pipeline.states([bad]) == [("dead", 4)]
        assert pipeline.states(good) == [("done", 1)] * 4
        assert [line for line in logs if line["event"] == "destination.unavailable"] == []


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


def test_unknown_content_of_the_breakers_row_is_ignored(pipeline: Pipeline) -> None:
    for stored in ("7", '["x"]', '[{"a": 1}]'):
        pipeline.world.connection.execute("UPDATE outbox_destinations SET refusals = %s::jsonb", [stored])

        assert pipeline.work(pipeline.sign_up(f"user{len(stored)}@a.example")) is Disposition.FAILED
