"""dramatiq: `dramatiq bench.consumers.dramatiq_actors`. Its command line imports these actors."""

import os
from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.consumers.mail_task import send_mail

dramatiq.set_broker(RedisBroker(url=os.environ["RQ_REDIS_URL"]))
actor = dramatiq.actor(send_mail)


def enqueue(ids: Iterable[int]) -> None:
    """Put one message on the queue for each of ours."""
    for message_id in ids:
        actor.send(message_id)
