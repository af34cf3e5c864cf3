"""`python -m tests.failover`: replace the primary PostgreSQL, then the master Redis, under load; count what is lost."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from embedded.mail.catcher import MailCatcher
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from tests.conftest import SCHEMA
from tests.failover.postgres_pair import DATABASE, PostgresPair
from tests.failover.redis_pair import RedisPair, waiting_jobs
from tests.failover.service import Outcome, Service, service
from tests.waiting import wait_until

_CALM_SECONDS = 5.0
_LAG_SECONDS = 3.0

_HANGING_SECONDS = 12.0
"""As long as an OutboxWorker waits for an answer, and a second more."""

_LEAVING_SECONDS = 8.0
"""Longer than the time between two questions to the sentinels, shorter than a replaced master stays one."""


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the moments at which people sign up.")
@click.option("--only", default="", help="Those alone whose name holds this word.")
def main(seed: int, only: str) -> None:
    """Show that a failover loses nothing. Exit 1 if it does."""
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="outbox-failover-"))
    folder.chmod(0o711)
    mail = MailCatcher(folder / "mail")
    mail.start()
    table = Table("failover", "figures", "holds")
    failed = False
    try:
        for name, fail_over in FAILOVERS.items():
            if only not in name:
                continue
            console.print(f"{name} …")
            mail.clear()
            place = folder / name.replace(", ", "-").replace(" ", "-").lower()
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


def _redis_dies(folder: Path, mail: MailCatcher, seed: int) -> tuple[Outcome, str]:
    with _redis(folder, mail, seed) as (pair, running):
        with running.frozen_workers():
            pair.freeze_replication()
            running.run_for(_LAG_SECONDS)
            killed_at = time.monotonic()
            missing = pair.kill_master()
            seconds = time.monotonic() - killed_at
        running.run_for(_CALM_SECONDS)
        outcome = running.settle(killed_at)
    if not missing:
        return outcome, ", NO job was missing: the replica did not lag"
    found = running.found_by_epoch()
    remark = f", {missing} jobs never reached the replica, promoted after {seconds:.1f} s, {found} found by their epoch"
    return outcome.only_if(found >= missing), remark


def _redis_hangs(folder: Path, mail: MailCatcher, seed: int) -> tuple[Outcome, str]:
    with _redis(folder, mail, seed) as (pair, running):
        hung_at = time.monotonic()
        pair.freeze_master()
        seconds = time.monotonic() - hung_at
        mailed_before = running.mailed
        running.run_for(_HANGING_SECONDS)
        mailed = running.mailed - mailed_before
        pair.thaw_old_master()
        left_behind = pair.clients_left_behind()
        pair.wait_until_old_master_is_replica()
        running.run_for(_CALM_SECONDS)
        outcome = running.settle(hung_at)
        left_behind += pair.clients_left_behind()
    remark = f", promoted after {seconds:.1f} s, {mailed} mails while it hung, {left_behind} connections left"
    return outcome.only_if(mailed > 0 and not left_behind), remark


def _redis_is_replaced(folder: Path, mail: MailCatcher, seed: int) -> tuple[Outcome, str]:
    with _redis(folder, mail, seed) as (pair, running):
        replaced_at = time.monotonic()
        pair.order_promotion()
        wait_until(lambda: not pair.clients_left_behind(), _LEAVING_SECONDS, "all to leave the replaced master")
        seconds = time.monotonic() - replaced_at
        lost = len(waiting_jobs(pair.first))
        pair.wait_until_old_master_is_replica()
        running.run_for(_CALM_SECONDS)
        outcome = running.settle(replaced_at)
    return outcome, f", all had left the old master after {seconds:.1f} s, with {lost} jobs in it"


@contextmanager
def _redis(folder: Path, mail: MailCatcher, seed: int) -> Iterator[tuple[RedisPair, Service]]:
    """Sign users up for a while, with Redis behind Sentinel."""
    postgres = PostgresServer(folder / "postgres")
    postgres.start()
    database_url = postgres.create_database(DATABASE)
    postgres.apply_schema(DATABASE, SCHEMA)
    pair = RedisPair(folder)
    try:
        with service(database_url, pair.url, mail, folder, seed) as running:
            running.run_for(_CALM_SECONDS)
            yield pair, running
    finally:
        pair.stop()
        postgres.remove()


FAILOVERS: dict[str, Callable[[Path, MailCatcher, int], tuple[Outcome, str]]] = {
    "PostgreSQL, synchronous standby": _postgres,
    "Redis, Sentinel, the master dies": _redis_dies,
    "Redis, Sentinel, the master hangs": _redis_hangs,
    "Redis, Sentinel, a planned failover": _redis_is_replaced,
}


if __name__ == "__main__":
    main()
