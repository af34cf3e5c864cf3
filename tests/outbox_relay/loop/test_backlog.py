"""The short versions of what `make proof` does with 100,000 messages."""

from tests.proof import backlog
from tests.proof.backlog import Drained


def test_a_backlog_that_waits_for_an_hour_is_not_pushed_again(database_url: str, emptiable_redis_url: str) -> None:
    waited = backlog.waiting(database_url, emptiable_redis_url, 500, minutes=60)

    assert (waited.rounds, waited.pushed_again) == (120, 0)


def test_a_backlog_that_is_being_drained_is_not_pushed_again(database_url: str, emptiable_redis_url: str) -> None:
    drained = backlog.drained(database_url, emptiable_redis_url, 500, workers_take=50)

    assert drained == Drained(messages=500, rounds=10, pushed_again=0)


def test_an_emptied_redis_holds_everything_again_within_seconds(database_url: str, emptiable_redis_url: str) -> None:
    assert backlog.amnesia(database_url, emptiable_redis_url, 1000).seconds < 5
