"""`python -m tests.failover`: kill the primary PostgreSQL, then the primary Redis, under load; count what is lost."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from embedded.mail_catcher import MailCatcher
from embedded.postgres import PostgresServer
from embedded.redis import RedisServer
from tests.conftest import SCHEMA
from tests.failover.postgres_pair import DATABASE, PostgresPair
from tests.failover.redis_pair import RedisPair
from tests.failover.service import Outcome, service

_CALM_SECONDS = 5.0
_LAG_SECONDS = 3.0


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the moments at which people sign up.")
def main(seed: int) -> None:
    """Show that a failover loses nothing. Exit 1 if it does."""
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="outbox-failover-"))
    folder.chmod(0o711)
    mail = MailCatcher(folder / "mail")
    mail.start()
    table = Table("failover", "figures", "holds")
    failed = False
    try:
        for name, fail_over in (("PostgreSQL, synchronous standby", _postgres), ("Redis, Sentinel", _redis)):
            console.print(f"{name} …")
            mail.clear()
            place = folder / name.partition(",")[0].lower()
            place.mkdir()
            place.chmod(0o711)
            outcome, remark = fail_over(place, mail, seed)
            failed |= not outcome.holds
            table.add_row(name, f"{outcome}{remark}", "yes" if outcome.holds else "NO")
    finally:
        mail.stop()
    console.print(table)
    if failed:
        console.print(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(int(failed))


def _postgres(folder: Path, mail: MailCatcher, seed: int) -> tuple[Outcome, str]:
    redis = RedisServer(folder / "redis")
    redis.start()
    pair = PostgresPair(folder)
    try:
        with service(pair.url, redis.url, mail, folder, seed) as running:
            running.run_for(_CALM_SECONDS)
            killed_at = time.monotonic()
            pair.fail_over()
            remark = f", promoted after {time.monotonic() - killed_at:.1f} s"
            running.run_for(_CALM_SECONDS)
            return running.settle(killed_at), remark
    finally:
        pair.remove()
        redis.stop()


def _redis(folder: Path, mail: MailCatcher, seed: int) -> tuple[Outcome, str]:
    postgres = PostgresServer(folder / "postgres")
    postgres.start()
    database_url = postgres.create_database(DATABASE)
    postgres.apply_schema(DATABASE, SCHEMA)
    pair = RedisPair(folder)
    try:
        with service(database_url, pair.url, mail, folder, seed) as running:
            running.run_for(_CALM_SECONDS)
            with running.frozen_workers():
                pair.freeze_replication()
                running.run_for(_LAG_SECONDS)
                killed_at = time.monotonic()
                missing = pair.fail_over()
            remark = f", {missing} jobs never reached the replica, promoted after {time.monotonic() - killed_at:.1f} s"
            running.run_for(_CALM_SECONDS)
            outcome = running.settle(killed_at)
            return outcome, remark if missing else ", NO job was missing: the replica did not lag"
    finally:
        pair.stop()
        postgres.remove()


if __name__ == "__main__":
    main()
