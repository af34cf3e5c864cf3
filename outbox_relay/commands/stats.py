"""`python -m outbox_relay stats`: how the outbox is doing, at one glance."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from outbox_relay.commands.output import duration, print_json, screen, table
from outbox_relay.commands.session import json_option, operator_database
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.latency import Lag, recent_lags
from shared.outbox.mail_stats import MailFigures, read_mail_figures
from shared.outbox.publishing import DbConnection
from shared.outbox.stats import LiveState, Surroundings, read_live_states, read_surroundings


@dataclass(frozen=True, slots=True)
class Glance:
    """What `stats` shows."""

    live: list[LiveState]
    surroundings: Surroundings
    mails: MailFigures
    lags: list[Lag]
    window_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Give everything, and the rate that follows from it."""
        return {**asdict(self), "done_per_second": self.done_per_second}

    @property
    def done_per_second(self) -> float:
        """How many messages were done each second of the window."""
        return sum(lag.done for lag in self.lags) / self.window_seconds


@click.command()
@click.option("--watch", is_flag=True, help="Draw it anew every --interval seconds until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="For --watch.")
@click.option(
    "--window",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds of history that lags and the rate are taken from.",
)
@json_option
def stats(interval: float, window: float, *, watch: bool, as_json: bool) -> None:
    """Show counts by state and queue, the oldest waiting message, lags, the rate, and what is away.

    The live counts are exact up to 10,000 of a state; more are estimated from a sample and marked with about, as is
    the size of history. With --watch and --json, one line each time.
    """
    with operator_database() as connection:
        if watch:
            _watch(connection, interval, window, as_json=as_json)
            return
        glance = read_glance(connection, window)
    if as_json:
        print_json(glance.as_json())
    else:
        screen().print(_drawn(glance))


def _watch(connection: DbConnection, interval: float, window: float, *, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                print_json(read_glance(connection, window).as_json())
                time.sleep(interval)
        with Live(_drawn(read_glance(connection, window)), console=screen(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_drawn(read_glance(connection, window)), refresh=True)
    except KeyboardInterrupt:
        return


def read_glance(connection: DbConnection, window: float) -> Glance:
    """Read everything once, with the lags of so many seconds. Raises psycopg.Error."""
    with read_transaction(connection, COMMAND_SECONDS):
        lags, seconds = recent_lags(connection, window)
        return Glance(
            live=read_live_states(connection),
            surroundings=read_surroundings(connection),
            mails=read_mail_figures(connection),
            lags=lags,
            window_seconds=seconds,
        )


def _drawn(glance: Glance) -> Group:
    states = table(
        ("state", "queue", "messages", "oldest for"),
        [
            (each.state, each.queue, _number(each), duration(each.oldest_seconds) if each.messages else "")
            for each in glance.live
        ],
        numbers=("messages", "oldest for"),
    )
    lags = table(
        ("queue", "done", "publish p50", "publish p99", "delivery p50", "delivery p99"),
        [
            (
                lag.queue,
                lag.done,
                *map(duration, (lag.publish_p50, lag.publish_p99, lag.delivery_p50, lag.delivery_p99)),
            )
            for lag in glance.lags
        ],
        numbers=("done", "publish p50", "publish p99", "delivery p50", "delivery p99"),
    )
    return Group(states, "", lags, "", Text("\n".join(_sentences(glance))))


def _number(state: LiveState) -> str:
    return f"about {state.messages}" if state.is_estimate else str(state.messages)


def _sentences(glance: Glance) -> list[str]:
    around = glance.surroundings
    dead = [each for each in glance.live if each.state == "dead"]
    letters = f"{'about ' if any(each.is_estimate for each in dead) else ''}{sum(each.messages for each in dead)}"
    mail = "answers" if around.mail_away_seconds is None else f"AWAY for {duration(around.mail_away_seconds)}"
    return [
        f"rate          {glance.done_per_second:.1f} messages/s done in the last {duration(glance.window_seconds)}",
        f"dead letters  {letters}",
        f"history       about {around.finished_estimate} finished messages",
        f"relays        {around.relays or 'NONE'}",
        f"mail server   {mail}",
        f"mail limits   {glance.mails.waiting} wait, {glance.mails.discarded} discarded within a day",
    ]
