"""`python -m outbox_relay doctor`: what is wrong, and what mends it."""

import sys
from collections.abc import Iterator
from typing import Final

import click
from rich.text import Text

from outbox_relay.commands.output import print_json, screen, visible
from outbox_relay.commands.session import EXIT_FAILED, EXIT_SETTINGS, json_option
from outbox_relay.doctor.examination import examine
from outbox_relay.doctor.findings import Finding, Verdict
from shared.errors import SettingsError
from shared.settings.relay import read_relay_settings

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.FAULT: "bold red",
    Verdict.SKIPPED: "dim",
}


@click.command()
@click.option(
    "--longest-transaction",
    type=click.FloatRange(0, 86_400 * 365),
    default=600.0,
    show_default=True,
    help="Seconds after which an open transaction is a fault.",
)
@json_option
def doctor(longest_transaction: float, *, as_json: bool) -> None:
    """Look at everything that the service needs, one line each with the fix; exit 1 if something is at fault.

    It reads the environment of this shell: give it the variables of the relay, and those of a worker to have the mail
    server and the secrets looked at too. It changes nothing and sends nothing.
    """
    try:
        settings = read_relay_settings()
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    findings = examine(settings, longest_transaction)
    found = list(findings) if as_json else list(_shown(findings))
    if as_json:
        print_json([{**_fields(each), "verdict": each.verdict.value} for each in found])
    if any(each.verdict is Verdict.FAULT for each in found):
        sys.exit(EXIT_FAILED)


def _shown(findings: Iterator[Finding]) -> Iterator[Finding]:
    console = screen()
    for each in findings:
        verdict = (f"{each.verdict.value:<8}", _STYLES[each.verdict])
        line = Text.assemble(verdict, (f"{each.check:<20}", "bold"), visible(each.says))
        if each.fix:
            line.append(f" - fix: {each.fix}")
        console.print(line)
        yield each


def _fields(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "says": finding.says, "fix": finding.fix}
