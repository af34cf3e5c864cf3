"""procrastinate, whose queue is PostgreSQL: `procrastinate --app bench.consumers.procrastinate_app.app worker`."""

import os
from collections.abc import Iterable

import procrastinate

from bench.consumers.mail_task import send_mail

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
task = app.task(send_mail, name="send_mail")


def enqueue(ids: Iterable[int]) -> None:
    """Create its tables and put one job into them for each message."""
    connector = procrastinate.SyncPsycopgConnector(conninfo=os.environ["DATABASE_URL"])
    with app.replace_connector(connector) as blocking, blocking.open():
        blocking.schema_manager.apply_schema()
        task.batch_defer(*({"message_id": message_id} for message_id in ids))
