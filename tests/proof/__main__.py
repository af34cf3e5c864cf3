"""`python -m tests.proof`: the guarantees that take minutes to show, with their figures."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from embedded.mail.catcher import MailCatcher
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from tests.proof import backlog, mailbox_flood, monitoring, outages, resend_times

SCHEMA = Path(__file__).parents[2] / "schema.sql"


class Bench:
    """Servers of our own, and a fresh database for each proof."""

    def __init__(self, folder: Path) -> None:
        """Start the servers in the folder."""
        self.postgres = PostgresServer(folder / "postgres")
        self.redis = RedisServer(folder / "redis")
        self.mail = MailCatcher(folder / "mail")
        self.postgres.start()
        self.redis.start()
        self.mail.start()
        self._databases = 0

    def fresh_database(self) -> str:
        """Return the address of a database with the schema; Redis and the mailbox are emptied."""
        self._databases += 1
        name = f"proof_{self._databases}"
        url = self.postgres.create_database(name)
        self.postgres.apply_schema(name, SCHEMA)
        with self.redis.client() as client:
            client.flushall()
        self.mail.clear()
        return url

    def stop(self) -> None:
        """Stop and remove everything."""
        self.mail.stop()
        self.redis.stop()
        self.postgres.remove()


@click.command()
@click.option("--hours", default=48.0, show_default=True, help="Length of the simulated outages.")
@click.option("--messages", default=100_000, show_default=True, help="Messages that wait in Redis.")
@click.option("--pending", default=5_000_000, show_default=True, help="Messages that monitoring is looked at beside.")
def main(hours: float, messages: int, pending: int) -> None:
    """Show that outages spend nothing and that a long backlog costs nothing twice. Exit 1 if one of it fails."""
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="outbox-proof-"))
    folder.chmod(0o711)
    bench = Bench(folder)
    table = Table("proof", "figures", "holds")
    failed = False
    try:
        for name, proof in _proofs(bench, hours, messages, pending).items():
            console.print(f"{name} …")
            holds, figures = proof()
            failed |= not holds
            table.add_row(name, figures, "yes" if holds else "NO")
    finally:
        bench.stop()
    console.print(table)
    sys.exit(int(failed))


def _proofs(bench: Bench, hours: float, messages: int, pending: int) -> dict[str, Callable[[], tuple[bool, str]]]:
    def outage(kind: Callable[[str, str, int, float], outages.Outage]) -> tuple[bool, str]:
        ended = kind(bench.fresh_database(), bench.redis.url, bench.mail.smtp_port, hours)
        mails = len(bench.mail.names())
        holds = (ended.attempts_spent, ended.done, mails) == (0, outages.MESSAGES, outages.MESSAGES)
        return holds and ended.resumed_within_seconds <= 60, f"{ended}, mails={mails}"

    def waiting() -> tuple[bool, str]:
        waited = backlog.waiting(bench.fresh_database(), bench.redis.url, messages, minutes=60)
        return waited.pushed_again == 0, str(waited)

    def drained() -> tuple[bool, str]:
        ended = backlog.drained(bench.fresh_database(), bench.redis.url, messages, workers_take=messages // 20)
        return ended.pushed_again == 0, str(ended)

    def amnesia() -> tuple[bool, str]:
        ended = backlog.amnesia(bench.fresh_database(), bench.redis.url, 1000)
        return ended.seconds < 5, str(ended)

    def monitored() -> tuple[bool, str]:
        looked = monitoring.beside(bench.fresh_database(), pending)
        return looked.holds, str(looked)

    def resent() -> tuple[bool, str]:
        times = resend_times.measure(bench.fresh_database(), samples=300)
        return times.holds(), str(times)

    def flooded(clients: int) -> tuple[bool, str]:
        flood = mailbox_flood.measure(bench.fresh_database(), clients)
        return flood.holds(), str(flood)

    return {
        "one client asks for 140 mails to one mailbox": lambda: flooded(1),
        "140 clients ask for 140 mails to one mailbox": lambda: flooded(140),
        '"send it again" takes the same time for every kind of address': resent,
        f"the mail server is away for {hours:g} h": lambda: outage(outages.mail_server_away),
        f"Redis is away for {hours:g} h": lambda: outage(outages.redis_away),
        f"PostgreSQL is away for {hours:g} h": lambda: outage(outages.postgresql_away),
        f"{messages} messages wait in Redis for an hour": waiting,
        f"{messages} messages are drained": drained,
        "Redis forgets 1,000 messages": amnesia,
        f"{pending} messages wait, and monitoring looks": monitored,
    }


if __name__ == "__main__":
    main()
