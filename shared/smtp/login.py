"""The EHLO name and the login at a mail server: SASL over SMTP (RFC 4954), with a password in UTF-8.

smtplib's own login accepts only ASCII, and ignores mechanisms that are offered in lower case.
"""

import base64
import binascii
import hmac
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from shared.smtp.replies import ENHANCED_CODE

_CHALLENGE: Final = 334
_LOGGED_IN: Final = frozenset({235, 503})
"""503: logged in already."""

_ENOUGH_OF_A_SECRET: Final = 8
"""How many characters of a secret are enough to recognise it in an answer, which may have cut the rest."""

_MOST_CHALLENGES: Final = 3
_LONGEST_NAME: Final = 20
"""The longest name of a mechanism (RFC 4422, section 3.1)."""
_MOST_NAMES: Final = 10


def address_literal(sock: socket.socket) -> str:
    """Return our own address as EHLO names it (RFC 5321, section 4.1.3)."""
    address = str(sock.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if sock.family == socket.AF_INET6 else f"[{address}]"


class Session(Protocol):
    """The part of smtplib.SMTP that the login needs, after EHLO."""

    esmtp_features: dict[str, str]

    def docmd(self, cmd: str, args: str = "") -> tuple[int, bytes]:
        """Send a command and return the answer."""


class LoginRefusedError(Exception):
    """The server refused the login, or offers no mechanism that we support."""

    def __init__(self, code: int | None, text: bytes) -> None:
        """Store the answer; without a code the text is our own."""
        super().__init__(text.decode("ascii", "replace"))
        self.code = code
        self.text = text


def log_in(session: Session, user: str, password: str) -> None:
    """Log in by the first mechanism of CRAM-MD5, PLAIN and LOGIN that the server offers and accepts.

    Raises:
        LoginRefusedError: none of them worked; it contains the last answer, or the offered mechanisms.

    """
    offered = [name.upper() for name in session.esmtp_features.get("auth", "").split()]
    usable = [name for name in _MECHANISMS if name in offered]
    refusal = LoginRefusedError(None, _nothing_fits(offered))
    for name in usable:
        # Some servers offer mechanisms that they then refuse: try the next one.
        code, text = _exchange(session, name, _MECHANISMS[name](user.encode(), password.encode()))
        if code in _LOGGED_IN:
            return
        refusal = LoginRefusedError(code, _without_secrets(text, user.encode(), password.encode()))
    raise refusal


Answers = Callable[[bytes], bytes]


def _exchange(session: Session, name: str, answer: Answers) -> tuple[int, bytes]:
    """Log in by one mechanism, and return the server's last answer."""
    first = answer(b"") if name == "PLAIN" else None
    code, text = session.docmd("AUTH", name if first is None else f"{name} {_encoded(first)}")
    for _ in range(_MOST_CHALLENGES):
        if code != _CHALLENGE:
            break
        try:
            challenge = base64.b64decode(text, validate=True)
        except binascii.Error:
            # RFC 4954, section 4: a client ends the exchange like this.
            session.docmd("*")
            raise LoginRefusedError(None, b"its challenge is not base64") from None
        code, text = session.docmd(_encoded(answer(challenge)))
    return code, text


def _without_secrets(text: bytes, user: bytes, password: bytes) -> bytes:
    """Return the server's answer; only its enhanced code if the answer repeats our login."""
    said = text.lower()
    sent = [_encoded(each).encode().lower() for each in (user, password, b"\0" + user + b"\0" + password)]
    parts = {
        each[start : start + _ENOUGH_OF_A_SECRET]
        for each in sent
        for start in range(max(1, len(each) - _ENOUGH_OF_A_SECRET + 1))
    }
    if not any(part in said for part in filter(None, {password.lower(), *parts})):
        return text
    code = ENHANCED_CODE.match(text)
    return b"" if code is None else code[0]


def _encoded(answer: bytes) -> str:
    return base64.b64encode(answer).decode("ascii")


def _plain(user: bytes, password: bytes) -> Answers:
    return lambda _challenge: b"\0" + user + b"\0" + password


def _login(user: bytes, password: bytes) -> Answers:
    answers = iter((user, password))
    return lambda _challenge: next(answers, b"")


def _cram_md5(user: bytes, password: bytes) -> Answers:
    return lambda challenge: user + b" " + hmac.new(password, challenge, "md5").hexdigest().encode()


_MECHANISMS: Final[Mapping[str, Callable[[bytes, bytes], Answers]]] = {
    "CRAM-MD5": _cram_md5,
    "PLAIN": _plain,
    "LOGIN": _login,
}


def _nothing_fits(offered: list[str]) -> bytes:
    if not offered:
        return b"it offers no login"
    names = ", ".join(name[:_LONGEST_NAME] for name in offered[:_MOST_NAMES])
    return f"it offers {names} and we support {', '.join(_MECHANISMS)}".encode("ascii", "replace")
