"""What a program that writes to Redis may put there."""

import os
from typing import Any


class RunsWhenRead:
    """A pickle of it runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)
