"""Signups written as fast as possible, in a process of its own: `python -m bench.processes.writers KIND`.

All kinds use the API's own engine. The password's hash is left out: it takes ten times as long as all of this, and is
the same for all.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final
from unittest import mock

import click
from sqlalchemy import Engine

from api.accounts import signup
from api.accounts.mail_limits.limiter import MailLimiter
from api.database.engine import build_engine
from api.database.notifier import Notifier
from bench.children import ready, report
from shared.settings.mail_limits import MailLimits

_HOURLY: Final = MailLimits(domain_an_hour=1_000_000, total_an_hour=1_000_000)

Write = Callable[[str], None]
"""Writes the user of that name."""


def user_and_message(engine: Engine) -> Write:
    """Return the API's own use case."""
    return _signup(engine, MailLimits(), lambda _username: "example.com")


def one_domain(engine: Engine) -> Write:
    """Return the API's own use case with limits for a domain and in total, where all writers have the same domain."""
    return _signup(engine, _HOURLY, lambda _username: "example.com")


def own_domains(engine: Engine) -> Write:
    """Return the same where each writer has a domain of its own."""
    return _signup(engine, _HOURLY, lambda username: f"{username.rpartition('_')[0].replace('_', '-')}.example.com")


def _signup(engine: Engine, limits: MailLimits, domain_of: Callable[[str], str]) -> Write:
    # A plain function, for the rest of this process: a mock that counts its calls would take part of a signup's time.
    mock.patch("api.accounts.signup.hash_password", _no_hash).start()
    rules = signup.MailRules(MailLimiter(limits, ["the bench's own key, not a secret"]), "127.0.0.1")

    def write(username: str) -> None:
        request = signup.SignUpRequest(username, "Ada Lovelace", f"{username}@{domain_of(username)}", "correct horse")
        signup.sign_up(engine, request, rules)

    return write


def user_message_and_ring(engine: Engine) -> Write:
    """Return the API's own use case with the notifier behind it, as its route has it."""
    write_both = user_and_message(engine)
    notifier = Notifier(os.environ["DATABASE_URL"])

    def write(username: str) -> None:
        write_both(username)
        notifier.notify()

    return write


KINDS: Final[dict[str, Callable[[Engine], Write]]] = {
    "message": user_and_message,
    "ring": user_message_and_ring,
    "one-domain": one_domain,
    "own-domains": own_domains,
}


def _no_hash(_password: str) -> str:
    return "!"


class Writers:
    """Threads that write until the time is over."""

    def __init__(self, write: Write, threads: int, seconds: float) -> None:
        """Prepare them. Nothing is started yet."""
        self._write = write
        self._seconds = seconds
        self._written = [0] * threads

    def run(self) -> dict[str, float]:
        """Write, and return how much was written and how long it took."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(len(self._written))]
        cpu, started = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        return {"commits": sum(self._written), "seconds": seconds, "cpu_seconds": time.process_time() - cpu}

    def _work(self, number: int) -> None:
        ends = time.perf_counter() + self._seconds
        prefix = f"u{os.getpid()}_{number}_"
        while time.perf_counter() < ends:
            self._write(f"{prefix}{self._written[number]}")
            self._written[number] += 1


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--threads", type=int, required=True, help="How many threads write at once, each with its connection.")
@click.option("--seconds", type=float, required=True, help="For how many seconds.")
def main(kind: str, threads: int, seconds: float) -> None:
    """Write signups and return how many."""
    engine = build_engine(os.environ["DATABASE_URL"])
    write = KINDS[kind](engine)
    Writers(write, threads, seconds=min(0.2, seconds)).run()  # connects, compiles the statements
    ready()
    report(Writers(lambda name: write(f"x{name}"), threads, seconds).run())


if __name__ == "__main__":
    main()
