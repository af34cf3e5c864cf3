"""The long form of the proof that RQ's stock worker loses nothing here.

    python -m tests.crash.proof --kills 200 --terms 100 --seed N

It starts servers of its own, prints one table, and ends with 1 if anything was lost.
"""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import click

from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from tests.crash.scene import ROOT, Scene, Stage, stage_of
from tests.crash.stock_worker import SETTINGS, Tally, kill_between_pop_and_start, terminate_under_load
from tests.programs.preloading import SERVICE, preloaded

_COLUMNS = ("", "signals", "messages", "mailed", "lost", "copies", "returned by the relay", "seconds")


@click.command()
@click.option("--kills", default=200, show_default=True, help="SIGKILLs between the pop and the start of the job.")
@click.option("--terms", default=100, show_default=True, help="SIGTERMs at random moments under load.")
@click.option("--seed", type=int, help="Chooses the moments; a random one if left out.")
def main(kills: int, terms: int, seed: int | None) -> None:
    """Kill and stop RQ's stock worker where it loses jobs, and count the messages' outcomes."""
    seed = secrets.randbits(32) if seed is None else seed
    click.echo(f"rq worker critical default, seed {seed}")
    rows = []
    with _stage() as stage:
        for name, lose, signals in (
            ("SIGKILL between pop and start", kill_between_pop_and_start, kills),
            ("SIGTERM under load", terminate_under_load, terms),
        ):
            click.echo(f"{signals} x {name} …")
            random = Random(f"{seed} {name}")  # noqa: S311 - it chooses moments, no secrets
            rows.append((name, *_count_losses(stage, lose, signals, random)))
    widths = [max(len(str(row[column])) for row in [_COLUMNS, *rows]) for column in range(len(_COLUMNS))]
    for row in (_COLUMNS, *rows):
        click.echo("  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.exit(any(row[_COLUMNS.index("lost")] for row in rows))


def _count_losses(
    stage: Stage, lose: Callable[[Scene, int, Random], Tally], signals: int, random: Random
) -> tuple[int, int, int, int, int, int, int]:
    started = time.monotonic()
    with stage.scene(**SETTINGS) as scene:
        tally = lose(scene, signals, random)
    seconds = round(time.monotonic() - started)
    return tally.signals, tally.messages, tally.mailed, tally.lost, tally.copies, tally.returned, seconds


@contextmanager
def _stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="outbox-proof-"))
    folder.chmod(0o711)
    postgres = PostgresServer(folder / "postgres", settings={"fsync": "off"})
    redis = RedisServer(folder / "redis", append_only=False, settings={"databases": "2"})
    try:
        postgres.start()
        redis.start()
        postgres.create_database("template")
        postgres.apply_schema("template", ROOT / "schema.sql")
        with preloaded(SERVICE, folder) as origin:
            yield stage_of(postgres, "template", redis, origin, folder)
    finally:
        redis.stop()
        postgres.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
