"""The result of one check: a severity, one line of text, and the fix."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but an operator should know."""
    FAULT = "fault"
    """Messages are not delivered, or a guarantee does not hold."""
    SKIPPED = "skipped"
    """It could not be checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the name of what was checked.
        severity: how serious it is.
        message: what was found; it contains no secret and no address of a person.
        fix: how to fix it; empty when there is nothing to fix.

    """

    check: str
    severity: Severity
    message: str
    fix: str = ""


def ok(check: str, message: str) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(check, Severity.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    """Return a finding that an operator should know."""
    return Finding(check, Severity.WARNING, message, fix)


def fault(check: str, message: str, fix: str) -> Finding:
    """Return a finding that something is broken."""
    return Finding(check, Severity.FAULT, message, fix)


def skipped(check: str, message: str) -> Finding:
    """Return a finding that the check was not possible, with the reason."""
    return Finding(check, Severity.SKIPPED, message)
