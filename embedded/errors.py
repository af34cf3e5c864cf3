"""Errors of embedded servers and programs."""

from pathlib import Path


class EmbeddedError(Exception):
    """An embedded server could not do what was asked."""


class NotRunningError(EmbeddedError):
    """A program was asked for something that only a running one has."""


class AlreadyRunningError(EmbeddedError):
    """A program was started twice, or its folder is in use by another one."""


class MissingBinaryError(EmbeddedError):
    """No usable server binary; the message names the package that brings it."""


class NoUsableFolderError(EmbeddedError):
    """No folder was found that the unprivileged account may enter."""


class ProgramFailedError(EmbeddedError):
    """A program ended, or was not ready in time."""

    def __init__(self, name: str, reason: str, log_file: Path) -> None:
        """Keep the facts; the message ends with the last lines of the log, if it can be read."""
        self.name = name
        self.reason = reason
        self.log_file = log_file
        super().__init__(f"{name} {reason}; log: {log_file}\n{tail(log_file)}")


def tail(log_file: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented; nothing if there is none."""
    try:
        text = log_file.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
