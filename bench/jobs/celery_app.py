"""celery: `celery --app bench.jobs.celery_app worker`. Its command line imports this application.

Late acknowledgements and no results, as for the mails. Many short tasks at a time are reserved, as its guide to
optimizing says.
"""

import os

from celery import Celery

app = Celery("bench", broker=os.environ["RQ_REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=128,
)


def do_nothing(_number: int) -> None:
    """Return at once."""


nothing = app.task(do_nothing, name="nothing")


def enqueue(count: int) -> None:
    """Put the jobs on the queue."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            nothing.apply_async((number,), producer=producer)
