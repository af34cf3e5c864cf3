"""procrastinate: `procrastinate --app bench.jobs.procrastinate_app.app worker`, with an asynchronous task."""

import os

import procrastinate

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))


async def do_nothing(number: int) -> None:
    """Return at once."""


nothing = app.task(do_nothing, name="nothing")


def enqueue(count: int) -> None:
    """Create its tables and put the jobs into them."""
    connector = procrastinate.SyncPsycopgConnector(conninfo=os.environ["DATABASE_URL"])
    with app.replace_connector(connector) as blocking, blocking.open():
        blocking.schema_manager.apply_schema()
        nothing.batch_defer(*({"number": number} for number in range(count)))
