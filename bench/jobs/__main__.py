"""Fill the queue of one of them: `python -m bench.jobs NAME --count N`."""

import importlib

import click

from bench.children import ready, report

_MODULES = ("celery_app", "dramatiq_actors", "procrastinate_app", "pgqueuer_app", "graphile_worker")


@click.command()
@click.argument("name", type=click.Choice(_MODULES))
@click.option("--count", type=int, required=True, help="How many jobs.")
def main(name: str, count: int) -> None:
    """Enqueue the jobs."""
    ready()
    importlib.import_module(f"bench.jobs.{name}").enqueue(count)
    report({"jobs": count})


if __name__ == "__main__":
    main()
