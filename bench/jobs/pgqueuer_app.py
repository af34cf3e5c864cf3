"""pgqueuer: `python -m bench.jobs.pgqueuer_app`, with an asynchronous entrypoint, the driver for asyncpg and uvloop.

`pgq run` does the same; that of 1.6.0 ends with an error when it sets up its log.
"""

import asyncio
import os

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

BATCH = 100


async def do_nothing(_job: Job) -> None:
    """Return at once."""


def enqueue(count: int) -> None:
    """Create its tables and put the jobs into them."""
    asyncio.run(_enqueue(count))


async def _enqueue(count: int) -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.enqueue(["nothing"] * count, [str(number).encode() for number in range(count)], [0] * count)
    await connection.close()


async def _work() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    application = PgQueuer(AsyncpgDriver(connection))
    application.entrypoint("nothing")(do_nothing)
    await application.run(batch_size=BATCH)


if __name__ == "__main__":
    uvloop.run(_work())
