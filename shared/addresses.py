"""Decide which addresses can be mailed: one rule for the form that accepts one and the worker that mails to it."""

import re
from typing import Final

# A dot-atom on both sides of the @ (RFC 5322, 3.4.1), in ASCII.
_DOT_ATOMS: Final = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*@[\w-]+(?:\.[\w-]+)*", re.ASCII)
_ENCODED_WORD: Final = "=?"


def is_mailable(address: str) -> bool:
    """Return whether the address can be used unchanged in a mail's header and envelope."""
    return _DOT_ATOMS.fullmatch(address) is not None and not may_be_decoded(address)


def may_be_decoded(address: str) -> bool:
    """Return whether a part of the address looks like an encoded word (RFC 2047).

    Some mail software decodes encoded words in addresses too, where they may contain a line end (CVE-2024-6923).
    """
    return _ENCODED_WORD in address
