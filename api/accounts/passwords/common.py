"""Passwords that attackers try first: those of api/data/common_passwords.txt.gz, whose README says where they are from.

They are kept as one text for each beginning of two letters: 1 MB in each process, where a set of all would take 9 MB. A
look-up takes some microseconds.
"""

import gzip
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from typing import Final

_BEGINNING: Final = 2


def is_common(password: str) -> bool:
    """Return whether the password, in lower case, is on the list; nothing shorter than six characters is."""
    if "\n" in password:
        return False
    return f"\n{password}\n" in common_passwords().get(password[:_BEGINNING], "")


@cache
def common_passwords() -> Mapping[str, str]:
    """Return the list by the words' beginnings, read once in a process. Raises FileNotFoundError."""
    packed = files("api").joinpath("data/common_passwords.txt.gz").read_bytes()
    with gzip.open(BytesIO(packed), "rt", encoding="utf-8", newline="\n") as lines:
        parts = groupby(lines, key=lambda line: line[:_BEGINNING])
        return {beginning: "\n" + "".join(part) for beginning, part in parts}
