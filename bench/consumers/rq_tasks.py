"""The usual task under RQ's stock class: `rq worker --config bench.consumers.rq_tasks critical default`.

RQ imports the module that --config names before it forks. That is its only way to avoid importing everything again in
each job's process, so the templates are compiled here too.
"""

import os
from collections.abc import Iterable

from redis import Redis
from rq import Queue

from bench.consumers.mail_task import load_templates, send_mail
from shared.outbox.messages import CRITICAL

load_templates()


def enqueue(ids: Iterable[int]) -> None:
    """Put one job on the critical queue for each message."""
    queue = Queue(CRITICAL, connection=Redis.from_url(os.environ["RQ_REDIS_URL"]))
    queue.enqueue_many([Queue.prepare_data(send_mail, (message_id,), result_ttl=60) for message_id in ids])
