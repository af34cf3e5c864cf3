"""What a mail server's refusal is about: its enhanced status code (RFC 3463) says more than its first three digits."""

import re
from typing import Final

_ENHANCED: Final = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
_SECURITY_OR_POLICY: Final = "7"


def enhanced_code(code: int, text: bytes) -> str | None:
    """Return the enhanced status code that a reply's text begins with (RFC 2034, section 4), such as "5.7.1".

    One whose class contradicts the reply's first digit is none.
    """
    found = _ENHANCED.match(text)
    if found is None or int(found[1]) != code // 100:
        return None
    return b".".join(found.groups()).decode("ascii")


def policy_code(code: int, text: bytes) -> str | None:
    """Return the enhanced status code of a permanent refusal by policy (5.7.x), None for every other reply."""
    enhanced = enhanced_code(code, text)
    return enhanced if enhanced is not None and enhanced.startswith(f"5.{_SECURITY_OR_POLICY}.") else None
