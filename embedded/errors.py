"""Errors of embedded servers and programs."""

from pathlib import Path


class EmbeddedError(Exception):
    """The base class of this package's errors: an embedded server could not do what it was asked to do."""


class NotRunningError(EmbeddedError):
    """The program is not running."""


class AlreadyRunningError(EmbeddedError):
    """The program is already running, or another one uses its folder."""


class MissingBinaryError(EmbeddedError):
    """There is no usable server program. The message names the package that contains it."""


class NoUsableFolderError(EmbeddedError):
    """There is no folder that the unprivileged account may enter."""


class ProgramFailedError(EmbeddedError):
    """The program ended, or was not ready in time."""

    def __init__(self, name: str, reason: str, log_file: Path) -> None:
        """Create the error. Its message ends with the last lines of the log, if the log can be read."""
        self.name = name
        self.reason = reason
        self.log_file = log_file
        super().__init__(f"{name} {reason}; log: {log_file}\n{tail(log_file)}")


def tail(log_file: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented; an empty text if there is no log."""
    try:
        text = log_file.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
