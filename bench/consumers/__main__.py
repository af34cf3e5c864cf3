"""Fill the queue of one of them: `python -m bench.consumers NAME --count N`."""

import importlib

import click

from bench.children import ready, report

_MODULES = ("celery_app", "dramatiq_actors", "procrastinate_app", "rq_tasks")


@click.command()
@click.argument("name", type=click.Choice(_MODULES))
@click.option("--count", type=int, required=True, help="How many messages there are, numbered from 1.")
def main(name: str, count: int) -> None:
    """Enqueue the peer's task for each message."""
    ready()
    importlib.import_module(f"bench.consumers.{name}").enqueue(range(1, count + 1))
    report({"jobs": count})


if __name__ == "__main__":
    main()
