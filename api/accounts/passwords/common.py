"""The list of common passwords, from api/data/common_passwords.txt.gz (see the README there for its sources).

It is stored as one text for each two-letter prefix: 1 MB per process, where a set would take 9 MB. A lookup takes some
microseconds.
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
    """Return whether the password, in lower case, is on the list. The list has nothing shorter than six characters."""
    if "\n" in password:
        return False
    return f"\n{password}\n" in common_passwords().get(password[:_BEGINNING], "")


@cache
def common_passwords() -> Mapping[str, str]:
    """Return the list by prefix, read once per process. Raises FileNotFoundError."""
    packed = files("api").joinpath("data/common_passwords.txt.gz").read_bytes()
    with gzip.open(BytesIO(packed), "rt", encoding="utf-8", newline="\n") as lines:
        parts = groupby(lines, key=lambda line: line[:_BEGINNING])
        return {beginning: "\n" + "".join(part) for beginning, part in parts}
