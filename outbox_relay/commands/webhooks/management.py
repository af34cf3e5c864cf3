"""`webhooks add`, `rotate`, `disable`, `enable` and `remove`."""

from collections.abc import Sequence

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json
from outbox_relay.commands.webhooks.display import waiting
from outbox_relay.commands.webhooks.finding import find, name_argument
from shared.database.connections import transaction
from shared.outbox.messages import NOTIFY_CHANNEL
from shared.webhooks import deliveries, endpoints
from shared.webhooks.events import EVENTS
from shared.webhooks.signing import new_secret
from shared.webhooks.urls import UnusableUrlError, parse_webhook_url


def _check_url(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    try:
        parse_webhook_url(url)
    except UnusableUrlError as exc:
        raise click.BadParameter(str(exc)) from None
    return url


@click.command()
@name_argument
@click.argument("url", callback=_check_url)
@click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="An event to send. Default: all.")
@json_option
def add(name: str, url: str, events: Sequence[str], *, as_json: bool) -> None:
    """Add an endpoint, and print its secret. It gets the events of what happens from now on."""
    secret = new_secret()
    wanted = list(dict.fromkeys(events)) or list(EVENTS)
    with operator_database() as connection:
        endpoint_id = endpoints.add(connection, name, url, wanted, secret)
    if endpoint_id is None:
        fail(f"{name}: another endpoint has this name; `webhooks list` lists them")
    parts = parse_webhook_url(url)
    if parts.scheme == "http":
        click.echo("http is sent to networks of the workers' WEBHOOK_ALLOWED_NETWORKS alone", err=True)
    if as_json:
        print_json({"id": endpoint_id, "name": name, "url": parts.origin, "events": wanted, "secret": secret})
    else:
        click.echo(f"{name} gets {', '.join(wanted)} at {parts.origin}")
        click.echo(f"its secret, which is shown only now: {secret}")


@click.command()
@name_argument
@click.option(
    "--overlap-hours",
    type=click.FloatRange(0, 24 * 365),
    default=24.0,
    show_default=True,
    help="For how long the former secret signs too.",
)
@json_option
def rotate(name: str, overlap_hours: float, *, as_json: bool) -> None:
    """Give an endpoint a new secret, and print it. For some time the former one signs too."""
    secret = new_secret()
    with operator_database() as connection:
        if not endpoints.rotate(connection, find(connection, name).id, secret, overlap_hours * 3600):
            fail(f"{name} was removed")
    if as_json:
        print_json({"name": name, "secret": secret, "overlap_hours": overlap_hours})
    else:
        click.echo(f"the new secret of {name}, which is shown only now: {secret}")
        click.echo(f"the former secret signs too for {overlap_hours:g} hours")


@click.command()
@name_argument
@click.option("--reason", required=True, help="Why it is disabled; the reason is shown with it.")
@json_option
def disable(name: str, reason: str, *, as_json: bool) -> None:
    """Disable an endpoint: nothing is sent to it. Its events are kept for 30 days, and then end."""
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    with operator_database() as connection:
        endpoint = find(connection, name)
        with transaction(connection):
            deliveries.disable(connection, endpoint.id, reason.strip(), enabled_at=None, ends_events=False)
    _print_done(name, "disabled", f"its events wait, and end in {deliveries.FAN_OUT_DAYS} days", as_json=as_json)


@click.command()
@name_argument
@json_option
def enable(name: str, *, as_json: bool) -> None:
    """Enable an endpoint: what waits is sent, and its events go on."""
    with operator_database() as connection:
        endpoint = find(connection, name)
        if not endpoints.enable(connection, endpoint.id):
            fail(f"{name} was removed")
        connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
    is_paused = endpoint.paused_at is not None and not endpoint.is_disabled
    rest = (
        f"but `destinations resume {endpoint.destination}` has to end its pause" if is_paused else "what waits is sent"
    )
    _print_done(name, "enabled", rest, as_json=as_json)


@click.command()
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def remove(name: str, *, yes: bool, as_json: bool) -> None:
    """Remove an endpoint. Its events end, and what waits for it is discarded, in small steps.

    If it is stopped before the end, run it again. Dead letters stay, until they are discarded.
    """
    with operator_database() as connection:
        endpoint = find(connection, name, also_removed=True)
        if not yes:
            click.confirm(f"remove {name}, and discard {waiting(endpoint)} messages that wait?", abort=True, err=True)
        endpoints.begin_removal(connection, endpoint.id)
        total = 0
        while discarded := endpoints.discard_waiting(connection, endpoint.id):
            total += discarded
        endpoints.end_removal(connection, endpoint.id)
    if as_json:
        print_json({"removed": name, "discarded": total})
    else:
        click.echo(f"{name} is removed; {total} messages are discarded")


def _print_done(name: str, state: str, rest: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "state": state})
    else:
        click.echo(f"{name} is {state}; {rest}")
