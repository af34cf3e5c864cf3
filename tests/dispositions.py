"""Read from log lines what became of each message."""

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.model.results import Disposition

EVENTS = frozenset(f"message.{disposition.value}" for disposition in Disposition)


def disposition_lines(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines with which messages left a worker's hands."""
    return [line for line in lines if line["event"] in EVENTS]


def dispositions(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what became of messages, in the order of the log."""
    return [line["event"].removeprefix("message.") for line in disposition_lines(lines)]
