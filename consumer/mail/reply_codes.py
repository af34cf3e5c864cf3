"""Classify the replies of a mail server: the table of docs/concepts/smtp.md as code.

A reply's enhanced status code (RFC 3463) decides, if there is one. The first three digits alone say little more than
whether a refusal is temporary or permanent.
"""

from enum import Enum, auto
from typing import Final

from shared.smtp.replies import ENHANCED_CODE

START_MAIL_INPUT: Final = 354

_CLOSING: Final = 421
_TOO_MUCH_AT_ONCE: Final = 432
_PERMANENT: Final = 500
_AFTER_THE_LAST_REFUSAL: Final = 600

_OUR_SENDER: Final = frozenset({"1.7", "1.8"})
"""Codes of a bad sender's address: its syntax, its domain."""

_NO_SUCH_RECIPIENT: Final = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10"})
"""Codes of a bad recipient: mailbox, system, syntax, moved without an address, a domain without mail."""

_LIMITS: Final = frozenset({"4.3.2", "4.4.5"})
"""Codes of a system that accepts no messages now, or is congested."""

_MAIL_TOO_BIG: Final = "3.4"
_PROTOCOL_UNDEFINED: Final = "5.0"
"""Some large providers answer this for a mailbox that does not exist."""


class Refusal(Enum):
    """The meaning of a refusal of a recipient, of DATA or of a mail's content."""

    FOR_GOOD = auto()
    """This mail is never accepted: no later attempt can succeed."""

    OF_THIS_MAIL = auto()
    """This mail is not accepted now: its attempt failed."""

    BY_POLICY = auto()
    """This mail is not accepted, and the reason may be who we are: its attempt failed, with a policy code."""

    OF_OUR_SENDER = auto()
    """The server accepts no mail from MAIL_FROM: an outage."""

    OF_A_BUSY_SERVER = auto()
    """The server, or this connection, accepts no more mails for now."""

    WITHOUT_A_REASON = auto()
    """A temporary refusal without a reason: about the connection if it has carried mail, else about this mail."""


def is_agreement(code: int) -> bool:
    """Return whether the reply is positive: 2yz, as the first digit decides about unknown codes (RFC 5321, 4.2)."""
    return 200 <= code < 300  # noqa: PLR2004 - the RFC's own numbers


def is_refusal(code: int) -> bool:
    """Return whether the reply is negative (RFC 5321, section 4.2.1: 4yz and 5yz)."""
    return 400 <= code < _AFTER_THE_LAST_REFUSAL  # noqa: PLR2004 - the RFC's own numbers


def is_temporary(code: int) -> bool:
    """Return whether the reply is a temporary refusal (4yz)."""
    return 400 <= code < _PERMANENT  # noqa: PLR2004 - the RFC's own numbers


def is_closing(code: int) -> bool:
    """Return whether the server closes the connection with this reply."""
    return code == _CLOSING


def enhanced_code(code: int, text: bytes) -> str | None:
    """Return the enhanced status code that a reply's text begins with (RFC 2034, section 4), such as "5.7.1".

    A code whose class contradicts the reply's first digit does not count.
    """
    found = ENHANCED_CODE.match(text)
    if found is None or int(found[1]) != code // 100:
        return None
    # Leading zeros are not allowed (RFC 3463, section 2), and mean nothing.
    return ".".join(str(int(number)) for number in found.groups())


def refusal(code: int, text: bytes) -> Refusal:
    """Return the meaning of a refusal (4yz or 5yz) after MAIL FROM."""
    enhanced = enhanced_code(code, text)
    detail = "" if enhanced is None else enhanced.partition(".")[2]
    if detail in _OUR_SENDER:
        return Refusal.OF_OUR_SENDER
    subject = detail.partition(".")[0]
    return _refusal_for_now(code, subject) if is_temporary(code) else _refusal_for_good(subject, detail)


def policy_code(code: int, text: bytes) -> str | None:
    """Return the enhanced status code of a refusal that may be about us rather than about the recipient."""
    return enhanced_code(code, text) if refusal(code, text) is Refusal.BY_POLICY else None


def is_about_recipient(code: int, text: bytes) -> bool:
    """Return whether a permanent refusal says that there is no such recipient.

    Without such a code the refusal may have any reason, including us.
    """
    enhanced = enhanced_code(code, text)
    return enhanced is not None and not is_temporary(code) and enhanced.partition(".")[2] in _NO_SUCH_RECIPIENT


def limits_connections(code: int, text: bytes) -> bool:
    """Return whether the reply may mean that the server serves too many connections at once."""
    return code in {_CLOSING, _TOO_MUCH_AT_ONCE} or enhanced_code(code, text) in _LIMITS


def _refusal_for_now(code: int, subject: str) -> Refusal:
    match subject:
        case "1" | "2" | "6":  # address, mailbox, content
            return Refusal.OF_THIS_MAIL
        case "3" | "4" | "5" | "7":  # mail system, network, protocol, security or policy
            return Refusal.OF_A_BUSY_SERVER
        case _:
            return Refusal.OF_A_BUSY_SERVER if code == _TOO_MUCH_AT_ONCE else Refusal.WITHOUT_A_REASON


def _refusal_for_good(subject: str, detail: str) -> Refusal:
    match subject:
        case "2":
            return Refusal.OF_THIS_MAIL
        case "3" | "5" if detail not in {_MAIL_TOO_BIG, _PROTOCOL_UNDEFINED}:
            return Refusal.BY_POLICY
        case "7":
            return Refusal.BY_POLICY
        case _:
            return Refusal.FOR_GOOD
