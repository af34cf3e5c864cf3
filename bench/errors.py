"""Errors of the benchmark itself."""

from pathlib import Path


class BenchError(Exception):
    """The bench could not do what was asked."""


class ContenderFailedError(BenchError):
    """A contender's process ended, stood still, or did not do what it said."""


class MarkersMissingError(BenchError):
    """A document has no place for what is to be written."""

    def __init__(self, document: Path, part: str) -> None:
        """Keep which."""
        self.document = document
        self.part = part
        super().__init__(f"{document} has no markers between which its {part} belongs")
