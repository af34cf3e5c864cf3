"""Refuse passwords that attackers try first (NIST SP 800-63B-4, section 3.1.1.2).

There are no rules about the composition of a password.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from api.accounts.passwords.common import is_common

LONGEST_PASSWORD: Final = 128

COMMON: Final = "This password is too common and easy to guess. Try a few unrelated words."
MADE_OF_NAMES: Final = (
    "This password is too similar to your username or email address, so it is easy to guess. Try a few unrelated words."
)

_SHORTEST_NAME: Final = 3
_SHORTEST_PART: Final = 4
_SHORTEST_REST: Final = 6
_SIGNS: Final = re.compile(r"[\W_]+")
# Common substitutes for letters, as in "p@ssw0rd".
_ALIKE: Final = str.maketrans("1!|l0@345$7+", "iiiioaeasstt")


def refusal_reason(password: str, username: str, email: str, *, shortest: int) -> str | None:
    """Return why the password is refused; None if it is accepted.

    Args:
        password: at most LONGEST_PASSWORD characters.
        username: the account's; empty where it is not known.
        email: the account's; empty where it is not known.
        shortest: the least number of characters.

    """
    if len(password) < shortest:
        return f"Use at least {shortest} characters."
    folded = _folded(password)
    if is_common(folded):
        return COMMON
    names = _names(_folded(username), _folded(email))
    if _is_made_of(folded, names) or _is_made_of(folded.translate(_ALIKE), {name.translate(_ALIKE) for name in names}):
        return MADE_OF_NAMES
    return None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _compact(text: str) -> str:
    return _SIGNS.sub("", text)


def _names(username: str, email: str) -> set[str]:
    """Return the account's names: the username, the address, and the parts of both except the top-level domain."""
    local_part, _, domain = email.partition("@")
    owner, site = local_part.partition("+")[0], domain.rpartition(".")[0]
    parts = {part for text in (username, local_part, site) for part in _SIGNS.split(text)}
    return {name for name in (username, email, local_part, owner, domain, site) if len(name) >= _SHORTEST_NAME} | {
        part for part in parts if len(part) >= _SHORTEST_PART
    }


def _is_made_of(password: str, names: Iterable[str]) -> bool:
    """Return whether too little of the password is left without the names, spelled in either direction."""
    given = rest = _compact(password)
    for name in sorted(set(filter(None, map(_compact, names))), key=len, reverse=True):
        rest = rest.replace(name, " ").replace(name[::-1], " ")
    if rest == given:
        return False
    rest = rest.replace(" ", "")
    return len(rest) < _SHORTEST_REST or is_common(rest)
