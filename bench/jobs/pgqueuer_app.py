"""pgqueuer: `pgq run bench.jobs.pgqueuer_app:create`, with an asynchronous entrypoint and the driver for asyncpg."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries


async def do_nothing(_job: Job) -> None:
    """Return at once."""


@asynccontextmanager
async def create() -> AsyncIterator[PgQueuer]:
    """Return the application that `pgq run` runs."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    application = PgQueuer(AsyncpgDriver(connection))

    application.entrypoint("nothing")(do_nothing)
    try:
        yield application
    finally:
        await connection.close()


def enqueue(count: int) -> None:
    """Create its tables and put the jobs into them."""
    asyncio.run(_enqueue(count))


async def _enqueue(count: int) -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.enqueue(["nothing"] * count, [str(number).encode() for number in range(count)], [0] * count)
    await connection.close()
