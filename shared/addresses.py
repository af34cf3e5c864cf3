"""Which addresses mail is sent to: one rule for the form that takes an address and the worker that writes to it."""

import re
from typing import Final

# A dot-atom on both sides of the @ (RFC 5322, 3.4.1), in ASCII.
_DOT_ATOMS: Final = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*@[\w-]+(?:\.[\w-]+)*", re.ASCII)
_ENCODED_WORD: Final = "=?"


def is_mailable(address: str) -> bool:
    """Return whether the address can stand in a mail's header and in its envelope as it is."""
    return _DOT_ATOMS.fullmatch(address) is not None and not may_be_decoded(address)


def may_be_decoded(address: str) -> bool:
    """Return whether some readers would take a part of the address for an encoded word (RFC 2047).

    Some decode one in addresses too, where it may hide a line end (CVE-2024-6923).
    """
    return _ENCODED_WORD in address
