"""The base of every error that this project raises itself."""


class OutboxError(Exception):
    """Something that this project itself refuses or cannot do."""


class SettingsError(OutboxError):
    """Environment variables are missing or malformed."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        """Keep, by variable, what is wrong with it; never the value, which may be a secret."""
        self.problems = problems
        lines = [f"{name}: {' '.join(texts)}" for name, texts in sorted(problems.items())]
        super().__init__("cannot start, the environment needs mending:\n  " + "\n  ".join(lines))
