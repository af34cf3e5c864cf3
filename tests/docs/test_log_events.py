"""docs/operations/logs.md lists each log event of the code, with its level and its fields, and no other."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from consumer.model.results import Disposition
from tests.programs.processes import ROOT

PROCESSES = {"API": "api", "Relay": "outbox_relay", "Worker": "consumer"}

NAME = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")

COMPUTED = {
    "event": [("dead_letter.retried", "info"), ("dead_letter.discarded", "info")],
    "group_event": [("failure_group.retried", "info"), ("failure_group.discarded", "info")],
    "destination_event": [(f"destination.{done}", "info") for done in ("paused", "resumed", "limited")],
    "failure_event": [
        (name, level)
        for name in ("accounts.not_expired", "verification_mails.not_pruned")
        for level in ("error", "warning")
    ],
    "f'message.{disposition.value}'": [
        (f"message.{disposition.value}", "warning" if disposition is Disposition.DEAD else "info")
        for disposition in Disposition
    ],
}
"""Events whose name is no literal, by the expression that names them."""


class Event(NamedTuple):
    process: str
    name: str
    level: str


def documented() -> dict[Event, set[str]]:
    found: dict[Event, set[str]] = {}
    process = ""
    for line in (ROOT / "docs" / "operations" / "logs.md").read_text().splitlines():
        if line.startswith("## "):
            process = PROCESSES[line.removeprefix("## ")]
        elif line.startswith("| `"):
            _, name, level, fields, _ = (cell.strip() for cell in line.split("|", 4))
            event = Event(process, name.strip("`"), level)
            assert event not in found, f"{event} is listed twice"
            found[event] = set(re.findall(r"`(\w+)`", fields))
    return found


def written() -> dict[Event, set[str]]:
    found: dict[Event, set[str]] = {}
    for process in PROCESSES.values():
        for path in sorted((ROOT / process).rglob("*.py")):
            for name, level, fields in calls(ast.parse(path.read_text())):
                found.setdefault(Event(process, name, level), set()).update(fields)
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, str, set[str]]]:
    """Return the name, level and fields of each line that a module logs."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        level, arguments = logger_method(call.func), call.args
        if level is None and call.args and ast.unparse(call.func) == "partial":
            level, arguments = logger_method(call.args[0]), call.args[1:]
        if level is None:
            continue
        fields = {keyword.arg for keyword in call.keywords if keyword.arg}
        for name, level_of_name in names(arguments[0], level):
            yield name, level_of_name, fields


def logger_method(node: ast.expr) -> str | None:
    if ast.unparse(node) == "write":  # a method of _log that was chosen before
        return "write"
    is_method = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "_log"
    return node.attr if is_method and isinstance(node, ast.Attribute) else None


def names(node: ast.expr, level: str) -> list[tuple[str, str]]:
    if isinstance(node, ast.IfExp):
        return names(node.body, level) + names(node.orelse, level)
    if isinstance(node, ast.Constant):
        return [(str(node.value), level)]
    return COMPUTED[ast.unparse(node)]


def test_the_document_and_the_code_name_the_same_events() -> None:
    assert documented() == written()


def test_each_name_is_a_noun_and_a_participle() -> None:
    assert [event.name for event in written() if not NAME.fullmatch(event.name)] == []
