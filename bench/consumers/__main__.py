"""Fills a peer's queue: `python -m bench.consumers NAME --count N`, started by the bench."""

import importlib

import click

from bench.processes.children import ready, tell

_MODULES = ("celery_app", "dramatiq_actors", "procrastinate_app", "rq_tasks")


@click.command()
@click.argument("name", type=click.Choice(_MODULES))
@click.option("--count", type=int, required=True, help="How many messages there are, numbered from 1.")
def main(name: str, count: int) -> None:
    """Ask the peer to run its task for each message."""
    ready()
    importlib.import_module(f"bench.consumers.{name}").enqueue(range(1, count + 1))
    tell({"jobs": count})


if __name__ == "__main__":
    main()
