"""dramatiq: `dramatiq bench.jobs.dramatiq_actors`. Its command line imports these actors."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["RQ_REDIS_URL"]))


def do_nothing(_number: int) -> None:
    """Return at once."""


nothing = dramatiq.actor(do_nothing, actor_name="nothing")


def enqueue(count: int) -> None:
    """Put the jobs on the queue."""
    for number in range(count):
        nothing.send(number)
