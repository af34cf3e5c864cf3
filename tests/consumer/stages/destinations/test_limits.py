"""A message beyond its destination's limit is released without spending anything, and does not spin."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from consumer.model.results import Disposition
from consumer.stages.database import Database
from consumer.stages.limiter import Limiter
from shared.database.connections import connect, transaction
from shared.outbox.destinations import control
from shared.outbox.destinations.states import read_destinations
from tests.consumer.stages.batches.steps import Steps
from tests.consumer.stages.destinations.calls import CRM, Calls, WriteForCrm
from tests.rows import add_message


def limit(calls: Calls, per_second: float | None = None, in_flight: int | None = None) -> None:
    control.set_limit(calls.connection, CRM, max_per_second=per_second, max_in_flight=in_flight)


def test_a_message_beyond_the_limit_is_due_again_within_five_seconds(calls: Calls) -> None:
    first, second = calls.add(), calls.add()
    limit(calls, per_second=0.1)

    assert [calls.process(id_) for id_ in (first, second)] == [Disposition.DELIVERED, Disposition.RELEASED]

    assert (calls.made, calls.row(second)["attempt"], calls.row(second)["failures"]) == ([first], 0, [])
    [(seconds,)] = calls.connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    assert 0 < seconds < 5


def test_messages_beyond_the_limit_are_due_at_different_moments(calls: Calls) -> None:
    limit(calls, per_second=0.001)
    for _ in range(6):
        calls.process(calls.add())

    due = calls.connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    assert len({round(seconds, 1) for (seconds,) in due}) > 2


def test_a_destination_has_no_more_in_hand_than_its_limit_allows(calls: Calls) -> None:
    limit(calls, in_flight=1)
    seen = []

    def while_it_runs() -> None:
        calls.answer = lambda: None
        seen.append(calls.process(calls.add()))

    calls.answer = while_it_runs

    assert calls.process(calls.add()) is Disposition.DELIVERED
    assert (seen, len(calls.made)) == ([Disposition.RELEASED], 1)


def test_a_probe_without_a_token_waits_for_the_next_one(calls: Calls) -> None:
    calls.process(calls.add())
    limit(calls, per_second=0.1)
    calls.process(calls.add())
    probe = calls.add()
    calls.connection.execute(
        "UPDATE outbox_destinations SET opened_at = now(), probe_at = '2100-01-01', probe_id = %s", [probe]
    )

    assert calls.process(probe) is Disposition.RELEASED

    row = calls.destination()
    assert (row["opened_at"] is None, row["probe_id"]) == (False, None)
    assert 9 < row["to_probe"] <= 10


def test_a_limit_counts_what_is_sent(calls: Calls) -> None:
    limit(calls, per_second=0.1)

    assert [calls.process(calls.add(WriteForCrm)) for _ in range(3)] == [Disposition.DELIVERED] * 3
    assert calls.process(calls.add()) is Disposition.DELIVERED


def test_a_mail_beyond_the_limit_is_not_sent(calls: Calls) -> None:
    control.set_limit(calls.connection, "mail", max_per_second=0.1, max_in_flight=None)

    dispositions = [calls.process(add_message(calls.connection)) for _ in range(2)]

    assert dispositions == [Disposition.DELIVERED, Disposition.RELEASED]


def test_the_senders_of_a_worker_share_what_they_take(database_url: str, calls: Calls) -> None:
    steps = Steps(Database(database_url), database_url)
    claimed = steps.claimed([calls.add() for _ in range(20)])
    limit(calls, per_second=1)
    state = read_destinations(calls.connection, [CRM])[CRM]
    limiter = Limiter(Database(database_url))

    with ThreadPoolExecutor(len(claimed)) as pool:
        refusals = list(pool.map(limiter.refusal, [each.with_destination(state) for each in claimed]))

    assert refusals.count(None) == 1
    limiter.close()
    steps.database.close()


def test_a_locked_row_delays_a_sender_for_a_moment_only(database_url: str, calls: Calls) -> None:
    steps = Steps(Database(database_url), database_url)
    claimed = steps.claimed([calls.add() for _ in range(5)])
    limit(calls, per_second=1000)
    state = read_destinations(calls.connection, [CRM])[CRM]
    limiter = Limiter(Database(database_url))
    with connect(database_url, "a human") as human, transaction(human):
        human.execute("SELECT FROM outbox_destinations FOR UPDATE")
        began_at = monotonic()

        refusals = [limiter.refusal(each.with_destination(state)) for each in claimed]

        assert monotonic() - began_at < 2
    assert None not in refusals
    limiter.close()
    steps.database.close()
