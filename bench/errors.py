"""Errors of the benchmark itself."""

from pathlib import Path


class BenchError(Exception):
    """The base class of the bench's errors."""


class ContenderFailedError(BenchError):
    """A contender's process ended, stalled, or did not do what it reported."""


class MarkersMissingError(BenchError):
    """A document has no markers for a part that is to be written."""

    def __init__(self, document: Path, part: str) -> None:
        """Create the error."""
        self.document = document
        self.part = part
        super().__init__(f"{document} has no markers between which its {part} belongs")
