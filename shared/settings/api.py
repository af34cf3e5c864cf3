"""The settings of the API, and of its console."""

import os
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from environs import Env, ValidationError, validate

from shared.errors import SettingsError
from shared.settings.cors_origins import parse_origins
from shared.settings.mail_limits import MailLimits, read_mail_limits
from shared.settings.parsing import (
    DEFAULT_UNVERIFIED_DAYS,
    NO_SECRET,
    is_secret,
    parse_base_url,
    parse_secret_keys,
    raise_problems,
    read_parsed,
    read_unverified_days,
)
from shared.settings.postgresql_url import parse_postgresql_url
from shared.settings.rate_limits import NONE, RateLimits, read_rate_limits

DEFAULT_PASSWORD_MIN_LENGTH: Final = 8
_LONGEST_MINIMUM: Final = 64
_CONSOLE_VARIABLE: Final = "OPS_TOKEN"

HOW_TO_TRUST_PROXIES: Final = (
    "set TRUSTED_PROXIES of the API to the number of proxies in front of it, and FORWARDING_HEADER to the header in"
    " which they name the client"
)
"""The advice of logs and `doctor` where a proxy is not trusted."""

ForwardingHeader = Literal["x-forwarded-for", "forwarded"]
X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"
"""The header in which proxies name the client: the one that most of them send, or that of RFC 7239."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The settings of the HTTP API.

    Attributes:
        trusted_proxies: the number of proxies whose forwarding headers are trusted.
        forwarding_header: the header in which they name the client.
        rate_limits: how many requests one client may send in a period.
        mail_limits: how many verification mails may be sent in a period.
        mailbox_url: where a development stack shows the mails that it has caught.
        unverified_days: how many days an account may wait for the verification of its address.
        password_min_length: the shortest length of a new password.
        cors_origins: the sites whose pages may call the API from a browser.

    """

    database_url: str = field(repr=False)
    secret_keys: tuple[str, ...] = field(repr=False)
    signup_mail_delay_seconds: float
    trusted_proxies: int
    rate_limits: RateLimits = field(default_factory=RateLimits)
    mail_limits: MailLimits = field(default_factory=MailLimits)
    mailbox_url: str | None = None
    unverified_days: float = DEFAULT_UNVERIFIED_DAYS
    password_min_length: int = DEFAULT_PASSWORD_MIN_LENGTH
    cors_origins: tuple[str, ...] = ()
    forwarding_header: ForwardingHeader = X_FORWARDED_FOR


def read_api_settings() -> ApiSettings:
    """Read the API's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = read_parsed(env, "DATABASE_URL", parse_postgresql_url)
    secret_keys = read_parsed(env, "SECRET_KEY", parse_secret_keys)
    delay = env.float("SIGNUP_MAIL_DELAY_SECONDS", 0.0, validate=validate.Range(min=0, max=86_400 * 365))
    proxies = env.int("TRUSTED_PROXIES", 0, validate=validate.Range(min=0, max=100))
    header = read_parsed(env, "FORWARDING_HEADER", _forwarding_header, X_FORWARDED_FOR)
    rate_limits = read_rate_limits(env)
    mail_limits = read_mail_limits(env)
    mailbox_url = read_parsed(env, "MAILBOX_URL", _mailbox_url, NONE)
    password_min_length = env.int(
        "PASSWORD_MIN_LENGTH",
        DEFAULT_PASSWORD_MIN_LENGTH,
        validate=validate.Range(min=DEFAULT_PASSWORD_MIN_LENGTH, max=_LONGEST_MINIMUM),
    )
    unverified_days = read_unverified_days(env)
    cors_origins = read_parsed(env, "CORS_ALLOWED_ORIGINS", _origins, NONE)
    raise_problems(env)
    return ApiSettings(
        database_url=database_url,
        secret_keys=secret_keys,
        signup_mail_delay_seconds=delay,
        trusted_proxies=proxies,
        forwarding_header=header,
        rate_limits=rate_limits,
        mail_limits=replace(mail_limits, days=max(1.0, unverified_days)),
        mailbox_url=mailbox_url,
        password_min_length=password_min_length,
        unverified_days=unverified_days,
        cors_origins=cors_origins,
    )


def _forwarding_header(text: str) -> ForwardingHeader:
    name = text.lower()
    if name not in {X_FORWARDED_FOR, FORWARDED}:
        raise ValidationError("has to be X-Forwarded-For or Forwarded: the header in which proxies name the client.")
    return cast("ForwardingHeader", name)


def is_behind_tls() -> bool:
    """Return whether BASE_URL is https://: the API speaks no TLS, so there is a proxy in front of it."""
    return urlsplit(os.environ.get("BASE_URL", "")).scheme == "https"


def _origins(text: str) -> tuple[str, ...]:
    try:
        return parse_origins(text)
    except ValueError as exc:
        raise ValidationError(str(exc)) from None


def _mailbox_url(text: str) -> str | None:
    return None if text == NONE else parse_base_url(text)


def read_ops_token() -> str | None:
    """Read OPS_TOKEN; None if it is not set. Raises SettingsError if it is too short."""
    given = os.environ.get(_CONSOLE_VARIABLE)
    if given is None:
        return None
    token = given.strip()
    if not is_secret(token):
        raise SettingsError({_CONSOLE_VARIABLE: [NO_SECRET]})
    return token
