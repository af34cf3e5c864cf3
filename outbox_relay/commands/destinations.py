"""`python -m outbox_relay destinations`: list, pause, resume and limit destinations."""

import time
from collections.abc import Iterable
from typing import Final

import click
from rich.table import Table

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import duration, print_json, stdout_console, table
from shared.database.connections import DbConnection, transaction
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.destinations import control
from shared.outbox.messages import DESTINATION_FORM
from shared.outbox.operations.destination_stats import OTHER, DestinationStats, read_destination_stats
from shared.outbox.operations.stats import COUNTED_EXACTLY, read_live_states

_POLL_SECONDS: Final = 0.5


def _check_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not DESTINATION_FORM.fullmatch(name):
        raise click.BadParameter(
            "a name has at most 64 lower-case letters, digits and the characters _ . : -, and begins with a letter or"
            " digit, such as mail or webhook:7"
        )
    return name


def _check_rate(_context: click.Context, _parameter: click.Parameter, rate: float | None) -> float | None:
    if rate is not None and not control.SMALLEST_RATE <= rate <= control.LARGEST_RATE:
        stop = "; `destinations pause` stops a destination" if rate <= 0 else ""
        raise click.BadParameter(f"from {control.SMALLEST_RATE:g} to {control.LARGEST_RATE:.0f} a second{stop}")
    return rate


_name = click.argument("name", callback=_check_name)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def destinations(context: click.Context, *, as_json: bool) -> None:
    """List the destinations, or pause, resume or limit one.

    A destination is the outside system that the work of messages needs, such as mail.
    """
    if context.invoked_subcommand is None:
        _list(as_json=as_json)
    elif as_json:
        raise click.UsageError("write --json after the command")


@destinations.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the destinations that have messages, or are unreachable, paused or limited. At most 100 are shown."""
    _list(as_json=as_json)


@destinations.command()
@_name
@click.option("--reason", required=True, help="Why it is paused; the reason is shown with the pause.")
@click.option("--wait", is_flag=True, help="Return when no message of it is in hand any more.")
@json_option
def pause(name: str, reason: str, *, wait: bool, as_json: bool) -> None:
    """Pause a destination: its messages wait, and no work for it begins.

    What is in hand already is finished. Nothing is lost and no attempt is spent.
    """
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    if reason.strip().startswith(control.DISABLED):
        raise click.BadParameter(
            "a reason that begins with 'disabled: ' is for webhook endpoints", param_hint="--reason"
        )
    with operator_database() as connection:
        control.pause(connection, name, reason.strip())
        in_hand = _count_in_hand(connection, name)
        try:
            if not as_json:
                click.echo(f"{name} is paused; {_messages(in_hand)} in hand")
            while wait and in_hand:
                time.sleep(_POLL_SECONDS)
                in_hand = _count_in_hand(connection, name)
                if not in_hand and not as_json:
                    click.echo("no message is in hand any more")
        except KeyboardInterrupt:
            fail(f"{_messages(in_hand)} still in hand; the pause stays")
    if as_json:
        print_json({"destination": name, "paused": True, "in_hand": in_hand})


@destinations.command()
@_name
@json_option
def resume(name: str, *, as_json: bool) -> None:
    """End a destination's pause."""
    with operator_database() as connection:
        resumed = control.resume(connection, name)
    if resumed is control.Resumed.DISABLED:
        fail(f"{name} is disabled, not paused: `python -m outbox_relay webhooks enable` enables an endpoint")
    if as_json:
        print_json({"destination": name, "resumed": resumed is control.Resumed.RESUMED})
    else:
        click.echo(f"{name} is {'resumed' if resumed is control.Resumed.RESUMED else 'not paused'}")


@destinations.command()
@_name
@click.option("--per-second", type=float, callback=_check_rate, help="How many messages may be sent in a second.")
@click.option(
    "--in-flight",
    type=click.IntRange(1, control.LARGEST_IN_FLIGHT),
    help="How many messages may be in hand at a time, in all workers together.",
)
@click.option("--none", "no_limit", is_flag=True, help="Remove the limit.")
@json_option
def limit(name: str, per_second: float | None, in_flight: int | None, *, no_limit: bool, as_json: bool) -> None:
    """Limit a destination, instead of its former limit, or remove the limit.

    The limit holds for all workers together. A second may have a burst of as many messages, or of one.
    """
    if no_limit == (per_second is not None or in_flight is not None):
        raise click.UsageError("give --per-second N, --in-flight N or both, or --none")
    with operator_database() as connection:
        control.set_limit(connection, name, max_per_second=per_second, max_in_flight=in_flight)
    if as_json:
        print_json({"destination": name, "max_per_second": per_second, "max_in_flight": in_flight})
    else:
        click.echo(f"{name} has {_limit(per_second, in_flight) or 'no limit'}")


def destinations_table(shown: Iterable[DestinationStats]) -> Table:
    """Return the table of destinations."""
    columns = ("destination", "pending", "published", "running", "oldest for", "state")
    rows = [
        (
            each.name,
            _number(each, each.pending),
            _number(each, each.published),
            each.running,
            duration(each.oldest_seconds) if each.oldest_seconds else "",
            _state(each),
        )
        for each in shown
    ]
    return table(columns, rows, numbers=columns[1:5])


def _list(*, as_json: bool) -> None:
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        shown = read_destination_stats(connection, read_live_states(connection), counted=COUNTED_EXACTLY)
    if as_json:
        print_json(shown)
    else:
        stdout_console().print(destinations_table(shown))


def _number(destination: DestinationStats, messages: int) -> str:
    is_more = not destination.are_all and (destination.name == OTHER or messages == COUNTED_EXACTLY)
    return f"over {messages}" if is_more else str(messages)


def _state(destination: DestinationStats) -> str:
    """Return what holds a destination up."""
    parts = []
    if destination.paused_seconds is not None:
        paused = "disabled" if destination.is_disabled else "paused"
        reason = (destination.pause_reason or "").removeprefix(control.DISABLED)
        parts.append(f"{paused} for {duration(destination.paused_seconds)}: {reason}")
    if destination.unreachable_seconds is not None:
        parts.append(f"unreachable for {duration(destination.unreachable_seconds)}: {destination.last_error}")
    if limited := _limit(destination.max_per_second, destination.max_in_flight):
        parts.append(limited)
    return "; ".join(parts)


def _limit(per_second: float | None, in_flight: int | None) -> str:
    parts = []
    if per_second is not None:
        parts.append(f"{per_second:.10g} a second")
    if in_flight is not None:
        parts.append(f"{in_flight} in flight")
    return f"a limit of {' and '.join(parts)}" if parts else ""


def _count_in_hand(connection: DbConnection, name: str) -> int:
    with transaction(connection):
        return control.count_in_hand(connection, name)


def _messages(number: int) -> str:
    return "no message is" if not number else "1 message is" if number == 1 else f"{number} messages are"
