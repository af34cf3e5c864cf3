"""SMTP_URL and SMTP_HELO_NAME: the mail server that the worker sends to and that `doctor` checks."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import unquote

from environs import Env, ValidationError

from shared.settings.parsing import not_a_url, raise_problems, read_optional, split_url

_PORTS: Final = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}
_HELO_NAME: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*"
    r"|\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9A-Fa-f:.]{2,45})\]"
)
_LONGEST_HELO_NAME: Final = 255

SmtpSecurity = Literal["smtp", "smtps", "smtp+starttls"]


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """The mail server, and how it is reached: without TLS, over TLS from the start, or after STARTTLS."""

    security: SmtpSecurity
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def read_smtp_server() -> SmtpServer | None:
    """Read SMTP_URL alone; None when it is not set. Raises SettingsError when it is malformed."""
    env = Env(eager=False)
    server = read_optional(env, "SMTP_URL", parse_smtp_server)
    raise_problems(env)
    return server


def read_smtp_helo_name() -> str | None:
    """Read SMTP_HELO_NAME alone; None when it is not set. Raises SettingsError when it is malformed."""
    env = Env(eager=False)
    helo_name = read_optional(env, "SMTP_HELO_NAME", parse_helo_name)
    raise_problems(env)
    return helo_name


def parse_smtp_server(text: str) -> SmtpServer:
    """Return the mail server that a URL names. Raises ValidationError."""
    parts = split_url(text)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"}:
        raise ValidationError(
            not_a_url("it has to be smtp://[user:password@]host[:port], smtps://… or smtp+starttls://…")
        )
    if (parts.username is None) != (parts.password is None):
        raise ValidationError(not_a_url("a user needs a password, separated by a colon"))
    return SmtpServer(
        security=cast("SmtpSecurity", parts.scheme),
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        user=None if parts.username is None else _login_text(parts.username),
        password=None if parts.password is None else _login_text(parts.password),
    )


def _login_text(quoted: str) -> str:
    """Return a decoded user or password. NUL is refused, because it separates the two (RFC 4616)."""
    try:
        text = unquote(quoted, errors="strict")
    except UnicodeDecodeError as exc:
        why = "a percent-encoded user or password has to be UTF-8, such as %C3%BC for \u00fc"
        raise ValidationError(not_a_url(why)) from exc
    if "\0" in text:
        raise ValidationError(not_a_url("its user or password contains %00, which no login can send"))
    return text


def parse_helo_name(text: str) -> str:
    """Return the name if it is a domain name or an address in brackets (RFC 5321, section 4.1.1.1).

    Raises:
        ValidationError: it is neither.

    """
    if len(text) > _LONGEST_HELO_NAME or not _HELO_NAME.fullmatch(text):
        raise ValidationError("has to be a domain name such as mail.example.org, or an address such as [192.0.2.1].")
    return text
