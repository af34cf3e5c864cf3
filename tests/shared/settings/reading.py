"""An environment that every process can read, and what is wrong with another one."""

from collections.abc import Callable

import pytest

from shared.errors import SettingsError

KEY = "k" * 32
GOOD = {"DATABASE_URL": "postgresql://user@host/bank", "SECRET_KEY": KEY, "MAIL_FROM": "Bank <no-reply@bank.example>"}

Read = Callable[[], object]


def problems(read: Read) -> dict[str, list[str]]:
    """Return the problems of each variable that `read` reports."""
    with pytest.raises(SettingsError) as caught:
        read()
    return caught.value.problems
