"""`python -m outbox_relay doctor`: check the installation, and say how to fix what is wrong."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import click
from rich.text import Text

from outbox_relay.commands.exit_codes import EXIT_FAILED, EXIT_SETTINGS
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json, stdout_console, visible
from outbox_relay.doctor.examination import examine
from outbox_relay.doctor.findings import Finding, Severity
from shared.errors import SettingsError
from shared.settings.relay import read_relay_settings

_STYLES: Final = {
    Severity.OK: "green",
    Severity.WARNING: "yellow",
    Severity.FAULT: "bold red",
    Severity.SKIPPED: "dim",
}


@click.command()
@click.option(
    "--longest-transaction",
    type=click.FloatRange(0, 86_400 * 365),
    default=600.0,
    show_default=True,
    help="Seconds after which an open transaction counts as a fault.",
)
@json_option
def doctor(longest_transaction: float, *, as_json: bool) -> None:
    """Check everything that the service needs. Each finding has one line, with the fix. Exit code 1: there is a fault.

    It reads the environment of this shell. Set the relay's variables, and also a worker's to have the mail server and
    the secrets checked. It changes nothing and sends nothing.
    """
    try:
        settings = read_relay_settings()
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    findings = examine(settings, longest_transaction)
    found = list(findings) if as_json else list(_shown(findings))
    if as_json:
        print_json([{**asdict(each), "severity": each.severity.value} for each in found])
    if any(each.severity is Severity.FAULT for each in found):
        sys.exit(EXIT_FAILED)


def _shown(findings: Iterator[Finding]) -> Iterator[Finding]:
    console = stdout_console()
    for each in findings:
        severity = (f"{each.severity.value:<8}", _STYLES[each.severity])
        line = Text.assemble(severity, (f"{each.check:<20}", "bold"), visible(each.message))
        if each.fix:
            line.append(f" - fix: {each.fix}")
        console.print(line)
        yield each
