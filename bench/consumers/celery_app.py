"""celery: `celery --app bench.consumers.celery_app worker`. Its command line imports this application.

Late acknowledgements, because without them a killed worker loses its tasks in hand. No results: nothing reads them.
"""

import os
from collections.abc import Iterable

from celery import Celery

from bench.consumers.mail_task import send_mail

app = Celery("bench", broker=os.environ["RQ_REDIS_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)
task = app.task(send_mail, name="send_mail")


def enqueue(ids: Iterable[int]) -> None:
    """Put one task on the queue for each message."""
    with app.producer_pool.acquire(block=True) as producer:
        for message_id in ids:
            task.apply_async((message_id,), producer=producer)
