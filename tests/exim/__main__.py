"""`python -m tests.exim`: mails through Debian's Exim while it limits its clients, and while it is killed.

It downloads Debian's packages and needs root. Where one of the two is missing it says so and does nothing; where CI is
set that is a failure.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from shared.database.connections import connect
from tests.conftest import SCHEMA
from tests.exim.packages import missing
from tests.exim.server import Exim
from tests.programs.processes import OUTBOX_WORKER
from tests.waiting import wait_until
from tests.world.messages import add_messages, nothing_waits, outcomes
from tests.world.service import Servers, pipeline

LIMITS: Final = ("smtp_accept_max_per_host = 3", "smtp_accept_max_per_connection = 5")
RATE: Final = """\
  defer message = 450 4.7.1 too much mail, try later
        ratelimit = 20 / 5s / per_mail / strict / $sender_host_address
"""
SIGNS: Final = ("too many connections from that IP address", "too many messages in one connection", "too much mail")
"""What Exim logs when one of the limits strikes."""

_SECONDS: Final = 300.0
_OUTBOX_WORKER: Final = {"RQ_WORKER_CLASS": OUTBOX_WORKER}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the messages.

    Attributes:
        mailed: people who got a mail.
        copies: mails beyond the first to each.
        attempts_spent: failed attempts of all messages together.

    """

    messages: int
    mailed: int
    copies: int
    dead: int
    attempts_spent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """What Exim does, to how many mails, of which worker; and whether the outcome is as promised."""

    title: str
    mails: int
    worker: Mapping[str, str]
    limits: tuple[str, ...]
    sender: str
    trouble: Callable[[Exim], None]
    allows_copies: bool
    signs: tuple[str, ...]

    def holds(self, outcome: Outcome) -> bool:
        """Return whether every message was mailed, none is dead, and no attempt was spent without need."""
        whole = outcome.mailed == outcome.messages and outcome.dead == 0
        return whole and (self.allows_copies or outcome.copies == outcome.attempts_spent == 0)


def _nothing(_exim: Exim) -> None:
    """Leave Exim alone."""


def _kill(exim: Exim) -> None:
    """Kill Exim three times with kill -9, each when it has delivered more mails than before."""
    for _ in range(3):
        before = len(exim.recipients())
        wait_until(lambda: len(exim.recipients()) >= before + 20, _SECONDS, "Exim to deliver")  # noqa: B023
        exim.kill()
        exim.start()


CASES: Final = (
    Case("limits, OutboxWorker", 200, _OUTBOX_WORKER, LIMITS, RATE, _nothing, allows_copies=False, signs=SIGNS),
    Case("limits, stock class", 20, {}, LIMITS, "", _nothing, allows_copies=False, signs=()),
    Case("kill -9 three times", 200, _OUTBOX_WORKER, (), "", _kill, allows_copies=True, signs=()),
)


@click.command()
def main() -> None:
    """Show that a second real mail server costs no mail. Exit 1 if it does."""
    console = Console()
    reasons = missing() if os.geteuid() == 0 else ["only root can give Exim a root folder of its own"]
    if reasons:
        console.print(f"The second mail server is skipped: {'; '.join(reasons)}")
        sys.exit(1 if os.environ.get("CI") else 0)
    folder = Path(tempfile.mkdtemp(prefix="outbox-exim-"))
    folder.chmod(0o711)
    table = Table("Exim", "mails", "copies", "dead", "attempts", "seconds", "holds")
    failed = False
    try:
        for number, case in enumerate(CASES):
            console.print(f"{case.title} …")
            outcome, idle = _play(case, folder / str(number))
            holds = case.holds(outcome) and not idle
            failed |= not holds
            figures = (outcome.copies, outcome.dead, outcome.attempts_spent, f"{outcome.seconds:.0f}")
            mails = f"{outcome.mailed} of {outcome.messages}"
            table.add_row(case.title, mails, *map(str, figures), "yes" if holds else " ".join(["NO", *idle]))
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"Exim could not be unpacked: {error.stderr}") from error
    console.print(table)
    if failed:
        console.print(f"Something does not hold. The logs are in {folder}")
    else:
        console.print("Debian's Exim: no mail was lost, none died, and its limits spent no attempt.")
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(int(failed))


def _play(case: Case, folder: Path) -> tuple[Outcome, list[str]]:
    """Carry a case out; return the outcome, and those of its signs that are missing in Exim's log."""
    folder.mkdir()
    folder.chmod(0o711)
    postgres, redis = PostgresServer(folder / "postgres"), RedisServer(folder / "redis")
    exim = Exim(folder / "exim")
    try:
        postgres.start()
        database_url = postgres.create_database("outbox")
        postgres.apply_schema("outbox", SCHEMA)
        redis.start()
        exim.start(*case.limits, sender=case.sender)
        started_at = time.monotonic()
        with connect(database_url, "proof") as connection:
            add_messages(connection, case.mails)
            with pipeline(Servers(database_url, redis.url, exim.smtp_url), None, folder, **case.worker):
                case.trouble(exim)
                with contextlib.suppress(AssertionError):  # the figures then say what is missing
                    wait_until(lambda: nothing_waits(connection), _SECONDS, "no message to be unfinished")
            seconds = time.monotonic() - started_at
            found = outcomes(connection)
        mailed = sum(count for (status, _, _), count in found.items() if status == "done")
        wait_until(lambda: len(set(exim.recipients())) >= mailed, _SECONDS, "Exim to deliver what it has accepted")
        recipients = Counter(exim.recipients())
        outcome = Outcome(
            messages=case.mails,
            mailed=len(recipients),
            copies=recipients.total() - len(recipients),
            dead=sum(count for (status, _, _), count in found.items() if status == "dead"),
            attempts_spent=sum(failures * count for (_, _, failures), count in found.items()),
            seconds=seconds,
        )
        return outcome, [f"without {sign!r}" for sign in case.signs if sign not in exim.log]
    finally:
        exim.kill()
        redis.kill()
        postgres.remove()


if __name__ == "__main__":
    main(prog_name="python -m tests.exim")
