"""The base class of this project's own errors, and the error about settings."""


class OutboxError(Exception):
    """The base class of this project's own errors."""


class SettingsError(OutboxError):
    """Environment variables are missing or malformed."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        """Store the problems of each variable; never the values, which may be secrets."""
        self.problems = problems
        lines = [f"{name}: {' '.join(texts)}" for name, texts in sorted(problems.items())]
        super().__init__("cannot start, fix these variables of the environment:\n  " + "\n  ".join(lines))
