"""Run one relay in a process of its own: `python -m bench.relays NAME`."""

import importlib
import os
import time
from typing import Final

import click

from bench.children import ready, report
from bench.relays.batches import MoveBatch, Task

RELAYS: Final = {
    "ours": "bench.relays.ours:prepare",
    "floor": "bench.relays.floor:prepare",
    "row-by-row": "bench.relays.usual:prepare_row_by_row",
    "one-by-one": "bench.relays.usual:prepare_one_by_one",
    "many": "bench.relays.usual:prepare_many",
    "txoutbox": "bench.relays.txoutbox_relay:prepare",
}
"""Named, not imported: each process imports only its own, and a peer may be absent."""


@click.command()
@click.argument("name", type=click.Choice(list(RELAYS)))
@click.option("--rows", type=int, required=True, help="How many rows are pending.")
@click.option("--seconds", type=float, required=True, help="The longest time to work, in seconds.")
def main(name: str, rows: int, seconds: float) -> None:
    """Move rows until there are none left or the time is over, and report how many and what it took."""
    module, _, function = RELAYS[name].partition(":")
    task = Task(os.environ["DATABASE_URL"], os.environ["RQ_REDIS_URL"], rows)
    move: MoveBatch = getattr(importlib.import_module(module), function)(task)
    ready()
    moved = 0
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = move()
        if batch == 0:
            break
        moved += batch
    wall = time.perf_counter() - started
    report({"rows": moved, "seconds": wall, "cpu_seconds": time.process_time() - cpu})


if __name__ == "__main__":
    main()
