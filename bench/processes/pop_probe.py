"""A worker that only notes when it popped a job: `python -m bench.processes.pop_probe`."""

import os
import time

import click
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from bench.children import ready, report
from shared.outbox.messages import CRITICAL
from shared.rq_format.keys import Keys


@click.command()
@click.option("--count", type=int, required=True, help="How many jobs to pop.")
def main(count: int) -> None:
    """Pop jobs one by one and print the time of each, by the clock of time.monotonic()."""
    client = Redis.from_url(os.environ["RQ_REDIS_URL"])
    client.ping()
    ready()
    for _ in range(count):
        client.blpop([Keys(RQ_KEY_PREFIX).queue(CRITICAL)])
        report({"popped": time.monotonic()})


if __name__ == "__main__":
    main()
