"""Run the service under load while its servers fail over, and count what was lost."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psycopg

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Program
from shared.database.connections import connect
from shared.settings.sentinel_url import CONNECTION_CLASS
from tests.chaos.load import Load
from tests.programs.processes import OUTBOX_WORKER, events, started, worker_command, worker_settings
from tests.waiting import wait_until

RATE = 15.0
_QUIET_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a failover cost.

    Attributes:
        lost: users who got 201 (or 200 for their own) and who have no account, or no mail.
        copies: mails beyond the first to each.
        seconds_to_quiet: from the failover to the last mail; signups came in all the while.

    """

    acknowledged: int
    committed: int
    mailed: int
    lost: int
    copies: int
    seconds_to_quiet: float
    as_expected: bool = True

    @property
    def holds(self) -> bool:
        """Return whether nothing was lost."""
        return self.as_expected and self.lost == 0 and self.acknowledged > 0 and self.mailed == self.committed

    def only_if(self, condition: bool) -> "Outcome":  # noqa: FBT001 - it is the sentence
        """Return this outcome, which holds only if the condition does too."""
        return replace(self, as_expected=self.as_expected and condition)

    def __str__(self) -> str:
        """Return the figures."""
        return (
            f"{self.acknowledged} acknowledged, {self.committed} committed, {self.mailed} mailed, {self.lost} lost,"
            f" {self.copies} copies, quiet after {self.seconds_to_quiet:.1f} s"
        )


class Service:
    """An API, two relays and two workers, and people who sign up."""

    def __init__(
        self,
        api: str,
        relays: list[Program],
        workers: list[Program],
        mail: MailCatcher,
        database_url: str,
        seed: int,
    ) -> None:
        """Start the signups."""
        self._relays = relays
        self._workers = workers
        self._mail = mail
        self._database_url = database_url
        self._load = Load(api, seed=seed, rate=RATE)
        self._load.start()

    def run_for(self, seconds: float) -> None:
        """Sign users up for a while."""
        time.sleep(seconds)

    @contextmanager
    def frozen_workers(self) -> Iterator[None]:
        """Stop the workers for a moment, so that jobs wait in Redis."""
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGCONT)

    @property
    def mailed(self) -> int:
        """How many mails have arrived."""
        return len(self._mail.mails())

    def found_by_epoch(self) -> int:
        """Return how many messages the relays found missing because Redis had begun another life."""
        lines = [line for relay in self._relays for line in events(relay)]
        return sum(line["returned_by_epoch"] for line in lines if line["event"] == "jobs.lost")

    def settle(self, since: float) -> Outcome:
        """Stop the signups, wait until each has an answer and no message waits, and count."""
        self._load.finish()
        wait_until(self._load.is_done, _QUIET_SECONDS, "the answer to every signup")
        wait_until(self._is_quiet, _QUIET_SECONDS, "the last mail")
        seconds = time.monotonic() - since
        with connect(self._database_url, "proof") as connection:
            users: dict[str, str] = dict(connection.execute("SELECT username, email FROM users").fetchall())
        recipients = [mail.recipients[0] for mail in self._mail.mails()]
        acknowledged = [signup for signup in self._load.signups if signup.acknowledged_by is not None]
        lost = {signup.email for signup in acknowledged if signup.username not in users} | set(users.values()) - set(
            recipients
        )
        return Outcome(
            acknowledged=len(acknowledged),
            committed=len(users),
            mailed=len(set(recipients)),
            lost=len(lost),
            copies=len(recipients) - len(set(recipients)),
            seconds_to_quiet=round(seconds, 1),
        )

    def abandon(self) -> None:
        """End the load, whatever happened."""
        self._load.abandon()

    def _is_quiet(self) -> bool:
        try:
            with connect(self._database_url, "proof") as connection:
                return connection.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is None
        except psycopg.Error:
            return False


@contextmanager
def service(database_url: str, redis_url: str, mail: MailCatcher, folder: Path, seed: int) -> Iterator[Service]:
    """Start everything but the servers; end it in the end."""
    port = free_port()
    settings = {
        **worker_settings(database_url, redis_url, mail.smtp_url),
        "RQ_WORKER_CLASS": OUTBOX_WORKER,
        "RQ_CONNECTION_CLASS": CONNECTION_CLASS,
        "OUTBOX_RUN_LEASE_SECONDS": "15",
        "PORT": str(port),
    }
    api = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "api:create_app()"]
    relay = [sys.executable, "-m", "outbox_relay"]
    with ExitStack() as stack:
        stack.enter_context(started(api, settings, folder / "api.log"))
        relays = [stack.enter_context(started(relay, settings, folder / f"relay-{number}.log")) for number in (1, 2)]
        workers = [
            stack.enter_context(started(worker_command(), settings, folder / f"worker-{number}.log"))
            for number in (1, 2)
        ]
        address = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: _is_ready(address), 60, "the API to be ready")
        running = Service(address, relays, workers, mail, database_url, seed)
        stack.callback(running.abandon)
        yield running


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False
