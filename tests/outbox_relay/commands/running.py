"""Commands as an operator types them, in this process."""

import json
from typing import Any

from click.testing import CliRunner, Result

from outbox_relay.__main__ import main


def run(*arguments: object, answer: str | None = None) -> Result:
    """Run a command; what it prints to standard output and to standard error comes as one text."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=answer)


def run_json(*arguments: object) -> Any:
    """Run a command with --json, and read its standard output."""
    ended = run(*arguments, "--json")
    assert ended.stdout, ended.output
    return json.loads(ended.stdout)
