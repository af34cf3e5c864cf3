"""Replies of a mail server: read up to a limit, and quoted without addresses.

A reply is untrusted text of any length. It is cut while it is read, and everything that is done with it takes time in
proportion to its length.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

MOST_BYTES: Final = 65_536
"""RFC 5321, section 4.5.3.1.5, allows lines of 512 bytes; the longest answers, to EHLO, have about thirty lines."""

MOST_LINES: Final = 128

NO_CODE: Final = -1
"""The code of a line that does not start with three digits."""

ENHANCED_CODE: Final = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
"""The enhanced status code (RFC 3463) that a reply's text may begin with (RFC 2034, section 4)."""

_LONGEST_QUOTE: Final = 200

_WORD: Final = re.compile(r"[^\s<>\"'(),:;]+")
"""Runs of characters that may contain an address. They do not overlap, so that each character is read once."""


class Reply(NamedTuple):
    """A reply: its code, and its lines without their codes.

    Attributes:
        is_cut: the reply was longer; what comes next on the connection is not the next reply.

    """

    code: int
    text: bytes
    is_cut: bool = False


class Lines(Protocol):
    """A source of lines."""

    def readline(self, size: int, /) -> bytes:
        """Return a line, or at most `size` bytes of it; nothing at the end."""


def read_reply(lines: Lines) -> Reply | None:
    """Return the next reply, cut to MOST_BYTES and MOST_LINES; None when the connection ends before it is complete.

    A reply of several lines has a hyphen behind each code but the last (RFC 5321, section 4.2.1).
    """
    texts: list[bytes] = []
    bytes_left = MOST_BYTES
    while line := lines.readline(bytes_left):
        bytes_left -= len(line)
        if bytes_left and not line.endswith(b"\n"):
            return None
        code = _code(line)
        texts.append(line[0 if code == NO_CODE else 4 :].strip(b" \t\r\n"))
        is_cut = not bytes_left and not line.endswith(b"\n")
        has_more = code != NO_CODE and line[3:4] == b"-"
        if has_more and not is_cut:
            is_cut = not bytes_left or len(texts) == MOST_LINES
        if is_cut or not has_more:
            return Reply(code, b"\n".join(texts), is_cut)
    return None


def _code(line: bytes) -> int:
    digits = line[:3]
    return int(digits) if len(digits) == 3 and digits.isdigit() else NO_CODE  # noqa: PLR2004 - as the RFC says


def quoted(code: int, text: bytes | str, address: str = "") -> str:
    """Return a reply in a form that may be logged: on one line, short, and without addresses.

    Servers often repeat the recipient, completely or its local part.
    """
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for part in filter(None, (address, address.partition("@")[0])):
        words = re.sub(rf"(?i)(?<![\w.+-]){re.escape(part)}(?![\w+-]|\.\w)", "[address]", words)
    words = "".join(_without_addresses(words))
    printable = "".join(char if char.isprintable() else " " for char in words)
    answer = " ".join(printable.split())
    return (answer if code == NO_CODE else f"{code} {answer}")[:_LONGEST_QUOTE].rstrip()


def _without_addresses(text: str) -> Iterator[str]:
    """Yield the text in pieces, each run of characters around an @ replaced."""
    end = 0
    for run in _WORD.finditer(text):
        if 0 < run[0].find("@", 1) < len(run[0]) - 1:
            yield text[end : run.start()]
            yield "[address]"
            end = run.end()
    yield text[end:]
