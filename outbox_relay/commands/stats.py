"""`python -m outbox_relay stats`: counts, latency, rate and the state of relays and mail server, as a table or JSON."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.destinations import destinations_table
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import duration, print_json, stdout_console, table
from shared.database.connections import DbConnection
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.operations.destination_stats import DestinationStats, read_destination_stats
from shared.outbox.operations.latency import QueueLatency, read_latency
from shared.outbox.operations.mail_stats import MailStats, read_mail_stats
from shared.outbox.operations.stats import DependencyStatus, LiveState, read_dependency_status, read_live_states


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `stats` shows at one moment."""

    live: list[LiveState]
    destinations: list[DestinationStats]
    dependencies: DependencyStatus
    mails: MailStats
    latency: list[QueueLatency]
    window_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return all of it, and the rate, as JSON values."""
        return {**asdict(self), "done_per_second": self.done_per_second}

    @property
    def done_per_second(self) -> float:
        """The messages that were done per second of the window."""
        return sum(each.done for each in self.latency) / self.window_seconds


@click.command()
@click.option("--watch", is_flag=True, help="Refresh every --interval seconds until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two refreshes.",
)
@click.option(
    "--window",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds of history that latency and rate are measured in.",
)
@json_option
def stats(interval: float, window: float, *, watch: bool, as_json: bool) -> None:
    """Show how many messages there are, and how fast.

    The numbers are by status and queue, with latency, rate, and the state of relays and mail server.

    The numbers are exact up to 10,000 of a status. Above that they are estimated from a sample and marked with "about",
    as is the size of history. With --watch and --json, one line is printed each time.
    """
    with operator_database() as connection:
        if watch:
            _watch(connection, interval, window, as_json=as_json)
            return
        snapshot = read_snapshot(connection, window)
    if as_json:
        print_json(snapshot.as_json())
    else:
        stdout_console().print(_drawn(snapshot))


def _watch(connection: DbConnection, interval: float, window: float, *, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                print_json(read_snapshot(connection, window).as_json())
                time.sleep(interval)
        with Live(_drawn(read_snapshot(connection, window)), console=stdout_console(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_drawn(read_snapshot(connection, window)), refresh=True)
    except KeyboardInterrupt:
        return


def read_snapshot(connection: DbConnection, window: float) -> Snapshot:
    """Return the present statistics, with the latency of the last `window` seconds. Raises psycopg.Error."""
    with read_transaction(connection, COMMAND_SECONDS):
        latency, seconds = read_latency(connection, window)
        live = read_live_states(connection)
        return Snapshot(
            live=live,
            destinations=read_destination_stats(connection, live),
            dependencies=read_dependency_status(connection),
            mails=read_mail_stats(connection),
            latency=latency,
            window_seconds=seconds,
        )


def _drawn(snapshot: Snapshot) -> Group:
    states = table(
        ("status", "queue", "messages", "oldest for"),
        [
            (each.status, each.queue, _number(each), duration(each.oldest_seconds) if each.messages else "")
            for each in snapshot.live
        ],
        numbers=("messages", "oldest for"),
    )
    latency = table(
        ("queue", "done", "publish p50", "publish p99", "delivery p50", "delivery p99"),
        [
            (
                each.queue,
                each.done,
                *map(duration, (each.publish_p50, each.publish_p99, each.delivery_p50, each.delivery_p99)),
            )
            for each in snapshot.latency
        ],
        numbers=("done", "publish p50", "publish p99", "delivery p50", "delivery p99"),
    )
    return Group(
        states, "", destinations_table(snapshot.destinations), "", latency, "", Text("\n".join(_sentences(snapshot)))
    )


def _number(state: LiveState) -> str:
    return f"about {state.messages}" if state.is_estimate else str(state.messages)


def _sentences(snapshot: Snapshot) -> list[str]:
    dependencies = snapshot.dependencies
    dead = [each for each in snapshot.live if each.status == "dead"]
    dead_letters = f"{'about ' if any(each.is_estimate for each in dead) else ''}{sum(each.messages for each in dead)}"
    mail = (
        "answers" if dependencies.mail_away_seconds is None else f"AWAY for {duration(dependencies.mail_away_seconds)}"
    )
    return [
        f"rate          {snapshot.done_per_second:.1f} messages/s done in the last {duration(snapshot.window_seconds)}",
        f"dead letters  {dead_letters}",
        f"history       about {dependencies.finished_estimate} finished messages",
        f"relays        {dependencies.relays or 'NONE'}",
        f"mail server   {mail}",
        f"mail limits   {snapshot.mails.waiting} waiting, {snapshot.mails.discarded} discarded in the last day",
    ]
