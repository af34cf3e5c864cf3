"""What a check found: one line, and what to do about it."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should know."""
    FAULT = "fault"
    """Messages wait, or a promise does not hold."""
    SKIPPED = "skipped"
    """It could not be looked at from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: the name of what was looked at.
        verdict: how bad it is.
        says: what was found; it holds no secret and no address of a person.
        fix: what mends it; empty when there is nothing to mend.

    """

    check: str
    verdict: Verdict
    says: str
    fix: str = ""


def ok(check: str, says: str) -> Finding:
    """Say that all is well."""
    return Finding(check, Verdict.OK, says)


def warning(check: str, says: str, fix: str) -> Finding:
    """Say what should be known."""
    return Finding(check, Verdict.WARNING, says, fix)


def fault(check: str, says: str, fix: str) -> Finding:
    """Say what is broken."""
    return Finding(check, Verdict.FAULT, says, fix)


def skipped(check: str, says: str) -> Finding:
    """Say why nothing can be said."""
    return Finding(check, Verdict.SKIPPED, says)
