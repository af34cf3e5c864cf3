"""`python -m outbox_relay stats`: how the outbox is doing, at one glance."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from outbox_relay.commands.screen import duration, print_json, screen, table
from outbox_relay.commands.session import json_option, operator_database
from outbox_relay.lags import Lag, recent_lags
from outbox_relay.statements import DbConnection
from shared.figures import SELECT_LIVE, SELECT_SURROUNDINGS, LiveState, Surroundings, live_states, surroundings


@dataclass(frozen=True, slots=True)
class Glance:
    """What `stats` shows."""

    live: list[LiveState]
    surroundings: Surroundings
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

    The live counts are exact, the size of history is PostgreSQL's estimate. With --watch and --json, one line each
    time.
    """
    with operator_database() as connection:
        if watch:
            _watch(connection, interval, window, as_json=as_json)
            return
        glance = _look(connection, window)
    if as_json:
        print_json(glance.as_json())
    else:
        screen().print(_drawn(glance))


def _watch(connection: DbConnection, interval: float, window: float, *, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                print_json(_look(connection, window).as_json())
                time.sleep(interval)
        with Live(_drawn(_look(connection, window)), console=screen(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_drawn(_look(connection, window)), refresh=True)
    except KeyboardInterrupt:
        return


def _look(connection: DbConnection, window: float) -> Glance:
    row = connection.execute(SELECT_SURROUNDINGS).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    lags, seconds = recent_lags(connection, window)
    return Glance(
        live=live_states(connection.execute(SELECT_LIVE).fetchall()),
        surroundings=surroundings(row),
        lags=lags,
        window_seconds=seconds,
    )


def _drawn(glance: Glance) -> Group:
    states = table(
        ("state", "queue", "messages", "oldest for"),
        [
            (each.state, each.queue, each.messages, duration(each.oldest_seconds) if each.messages else "")
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


def _sentences(glance: Glance) -> list[str]:
    around = glance.surroundings
    letters = sum(each.messages for each in glance.live if each.state == "dead")
    mail = "answers" if around.mail_away_seconds is None else f"AWAY for {duration(around.mail_away_seconds)}"
    return [
        f"rate          {glance.done_per_second:.1f} messages/s done in the last {duration(glance.window_seconds)}",
        f"dead letters  {letters}",
        f"history       about {around.finished_estimate} finished messages",
        f"relays        {around.relays or 'NONE'}",
        f"mail server   {mail}",
    ]
