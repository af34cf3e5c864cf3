"""The settings of each process, read once from the environment.

Every process asks only for what it needs: the relay knows neither SECRET_KEY nor MAIL_FROM. All that is missing or
malformed is reported at once, by the variable's name and never with its value, which may be a secret.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Final, Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from environs import Env, EnvValidationError, ValidationError, validate
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shared.addresses import may_be_decoded
from shared.errors import SettingsError
from shared.settings import mail_limits, rate_limits
from shared.settings.cors_origins import parse_origins
from shared.settings.mail_limits import MailLimits
from shared.settings.postgresql_parameters import check_postgresql_parameters
from shared.settings.rate_limits import NONE, RateLimits
from shared.settings.redis_parameters import check_redis_parameters
from shared.settings.sentinel_url import is_sentinel_url, parse_sentinel_url

MINIMUM_KEY_CHARACTERS: Final = 32
DEFAULT_UNVERIFIED_DAYS: Final = 7.0
DEFAULT_PASSWORD_MIN_LENGTH: Final = 8
_LONGEST_MINIMUM: Final = 64
_NO_SECRET: Final = (
    f"needs at least {MINIMUM_KEY_CHARACTERS} printable characters:"
    " make them with python -c 'import secrets; print(secrets.token_urlsafe(32))'."
)
_CONSOLE_VARIABLE: Final = "OPS_TOKEN"
_POSTGRESQL_SCHEMES: Final = {"postgresql", "postgres", "postgresql+psycopg"}
_REDIS_SCHEMES: Final = {"redis", "rediss", "unix"}
_HELO_NAME: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*"
    r"|\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9A-Fa-f:.]{2,45})\]"
)
_LONGEST_HELO_NAME: Final = 255
_SMTP_PORTS: Final = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}

ForwardingHeader = Literal["x-forwarded-for", "forwarded"]
X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"
"""In which header proxies name the client: the one that most send, or that of RFC 7239."""

SmtpSecurity = Literal["smtp", "smtps", "smtp+starttls"]


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed in, and how: in the clear, over TLS from the start, or after STARTTLS."""

    security: SmtpSecurity
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the HTTP API needs.

    Attributes:
        trusted_proxies: how many proxies' forwarding headers are believed.
        forwarding_header: which header that is.
        rate_limits: how often one client may ask.
        mail_limits: how many verification mails may be due in a time.
        mailbox_url: where a development stack shows the mails that it has caught, for the page that asks to look there.
        unverified_days: how long an account may wait for the verification of its address.
        password_min_length: how many characters a new password has to have.
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


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What the relay needs.

    Attributes:
        unverified_days: after how long an account whose address is not verified is deleted.

    """

    database_url: str = field(repr=False)
    listen_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    key_prefix: str
    publish_lease_seconds: float
    run_lease_seconds: float
    batch_size: int
    poll_seconds: float
    keep_done_days: float
    metrics_address: tuple[str, int] | None = None
    unverified_days: float = DEFAULT_UNVERIFIED_DAYS


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What the consumer needs, in RQ's stock worker and in OutboxWorker alike."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    smtp_server: SmtpServer
    smtp_timeout_seconds: float
    mail_from: Address
    base_url: str
    secret_keys: tuple[str, ...] = field(repr=False)
    verify_email_minutes: float
    run_lease_seconds: float
    backoff_scale: float
    concurrency: int
    smtp_helo_name: str | None = None

    @property
    def send_deadline_seconds(self) -> float:
        """Give the longest that one send may take, from name look-up to final answer: two thirds of the lease.

        The last third is the time in which the acknowledgement reaches PostgreSQL before the lease is over.
        """
        return self.run_lease_seconds * 2 / 3


def read_api_settings() -> ApiSettings:
    """Read the API's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = _text(env, "DATABASE_URL", _postgresql_url)
    secret_keys = _text(env, "SECRET_KEY", _secret_keys)
    delay = env.float("SIGNUP_MAIL_DELAY_SECONDS", 0.0, validate=validate.Range(min=0, max=86_400 * 365))
    proxies = env.int("TRUSTED_PROXIES", 0, validate=validate.Range(min=0, max=100))
    header = _text(env, "FORWARDING_HEADER", _forwarding_header, X_FORWARDED_FOR)
    limit_texts = rate_limits.read_texts(env)
    mail_limit_texts = mail_limits.read_texts(env)
    mailbox_url = _text(env, "MAILBOX_URL", _mailbox_url, NONE)
    password_min_length = env.int(
        "PASSWORD_MIN_LENGTH",
        DEFAULT_PASSWORD_MIN_LENGTH,
        validate=validate.Range(min=DEFAULT_PASSWORD_MIN_LENGTH, max=_LONGEST_MINIMUM),
    )
    unverified_days = _unverified_days(env)
    cors_origins = _text(env, "CORS_ALLOWED_ORIGINS", _origins, NONE)
    _check(env)
    return ApiSettings(
        database_url=_postgresql_url(database_url),
        secret_keys=_secret_keys(secret_keys),
        signup_mail_delay_seconds=delay,
        trusted_proxies=proxies,
        forwarding_header=_forwarding_header(header),
        rate_limits=rate_limits.parse_texts(limit_texts),
        mail_limits=mail_limits.parse_texts(mail_limit_texts, unverified_days),
        mailbox_url=_mailbox_url(mailbox_url),
        password_min_length=password_min_length,
        unverified_days=unverified_days,
        cors_origins=_origins(cors_origins),
    )


def read_relay_settings() -> RelaySettings:
    """Read the relay's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = _text(env, "DATABASE_URL", _postgresql_url)
    listen_url = _text(env, "OUTBOX_LISTEN_URL", _postgresql_url, database_url or "postgresql://")
    redis_url = _text(env, "RQ_REDIS_URL", _redis_url, "redis://localhost:6379/0")
    key_prefix = env.str("RQ_KEY_PREFIX", "rq", validate=validate.Regexp(r"[A-Za-z0-9_.:{}-]+\Z"))
    publish_lease = _seconds(env, "OUTBOX_PUBLISH_LEASE_SECONDS", 30.0)
    run_lease = _seconds(env, "OUTBOX_RUN_LEASE_SECONDS", 60.0)
    batch_size = env.int("OUTBOX_BATCH_SIZE", 1000, validate=validate.Range(min=1, max=10_000))
    poll = _seconds(env, "OUTBOX_POLL_SECONDS", 1.0)
    keep_done_days = env.float("OUTBOX_KEEP_DONE_DAYS", 7.0, validate=validate.Range(min=0, max=36_500))
    metrics_address = env.str("OUTBOX_METRICS_ADDRESS", None, validate=_host_and_port)
    unverified_days = _unverified_days(env)
    _check(env)
    return RelaySettings(
        database_url=_postgresql_url(database_url),
        listen_url=_postgresql_url(listen_url),
        redis_url=redis_url,
        key_prefix=key_prefix,
        publish_lease_seconds=publish_lease,
        run_lease_seconds=run_lease,
        batch_size=batch_size,
        poll_seconds=poll,
        keep_done_days=keep_done_days,
        metrics_address=None if metrics_address is None else _host_and_port(metrics_address),
        unverified_days=unverified_days,
    )


def read_consumer_settings() -> ConsumerSettings:
    """Read the consumer's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = _text(env, "DATABASE_URL", _postgresql_url)
    redis_url = _text(env, "RQ_REDIS_URL", _redis_url, "redis://localhost:6379/0")
    smtp_url = _text(env, "SMTP_URL", _smtp_server, "smtp://localhost:25")
    smtp_timeout = env.float("SMTP_TIMEOUT_SECONDS", None, validate=_positive(86_400))
    helo_name = env.str("SMTP_HELO_NAME", None, validate=_helo_name)
    mail_from = _text(env, "MAIL_FROM", _mail_from)
    base_url = _text(env, "BASE_URL", _base_url, "http://localhost:8080")
    secret_keys = _text(env, "SECRET_KEY", _secret_keys)
    verify_minutes = env.float("VERIFY_EMAIL_MINUTES", 1440.0, validate=validate.Range(min=0, max=525_600 * 10))
    run_lease = _seconds(env, "OUTBOX_RUN_LEASE_SECONDS", 60.0)
    backoff_scale = env.float("OUTBOX_BACKOFF_SCALE", 1.0, validate=validate.Range(min=0, max=1000))
    concurrency = env.int("WORKER_CONCURRENCY", 10, validate=validate.Range(min=1, max=1000))
    _check(env)
    # A short lease shortens the default; only a value that somebody chose can contradict it.
    smtp_timeout = min(10.0, run_lease * 2 / 3) if smtp_timeout is None else smtp_timeout
    settings = ConsumerSettings(
        database_url=_postgresql_url(database_url),
        redis_url=redis_url,
        smtp_server=_smtp_server(smtp_url),
        smtp_timeout_seconds=smtp_timeout,
        mail_from=_mail_from(mail_from),
        base_url=_base_url(base_url),
        secret_keys=_secret_keys(secret_keys),
        verify_email_minutes=verify_minutes,
        run_lease_seconds=run_lease,
        backoff_scale=backoff_scale,
        concurrency=concurrency,
        smtp_helo_name=helo_name,
    )
    if settings.smtp_timeout_seconds > settings.send_deadline_seconds:
        message = (
            "must not be longer than two thirds of OUTBOX_RUN_LEASE_SECONDS, the deadline of a whole send: lower it or"
            " raise the lease. The greeting and the answer to a mail's content get all of that time anyway."
        )
        raise SettingsError({"SMTP_TIMEOUT_SECONDS": [message]})
    return settings


def read_database_url() -> str:
    """Read DATABASE_URL alone. Raises SettingsError when it is missing or malformed."""
    env = Env(eager=False)
    database_url = _text(env, "DATABASE_URL", _postgresql_url)
    _check(env)
    return _postgresql_url(database_url)


def read_smtp_server() -> SmtpServer | None:
    """Read SMTP_URL alone; None when it is not set. Raises SettingsError when it is malformed."""
    env = Env(eager=False)
    smtp_url = env.str("SMTP_URL", None, validate=_smtp_server)
    _check(env)
    return None if smtp_url is None else _smtp_server(smtp_url)


def read_smtp_helo_name() -> str | None:
    """Read SMTP_HELO_NAME alone; None when it is not set. Raises SettingsError when it is malformed."""
    env = Env(eager=False)
    helo_name = env.str("SMTP_HELO_NAME", None, validate=_helo_name)
    _check(env)
    return helo_name


def _check(env: Env) -> None:
    try:
        env.seal()
    except EnvValidationError as exc:
        raise SettingsError(cast("dict[str, list[str]]", exc.error_messages)) from None


def _text(env: Env, name: str, parse: Callable[[str], object], default: str | None = None) -> str:
    """Read a text that `parse` accepts. The text is given back, so that it is parsed once all are known to be good."""

    def accepts(text: str) -> None:
        parse(text)

    if default is None:
        return env.str(name, validate=accepts)
    return env.str(name, default, validate=accepts)


def _unverified_days(env: Env) -> float:
    """Read it the same way in API and relay."""
    return env.float("UNVERIFIED_DAYS", DEFAULT_UNVERIFIED_DAYS, validate=validate.Range(min=0, max=36_500))


def _seconds(env: Env, name: str, default: float) -> float:
    return env.float(name, default, validate=_positive(86_400))


def _positive(largest: float) -> validate.Range:
    return validate.Range(min=0, min_inclusive=False, max=largest)


def _split(url: str) -> SplitResult:
    _refuse_blanks(url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no number up to 65535
    except ValueError as exc:
        raise ValidationError(_not_a_url("it cannot be parsed")) from exc
    return parts


def _refuse_blanks(url: str) -> None:
    """Refuse what urlsplit would drop without a word and the program that gets the URL would not: a final line break.

    Raises ValidationError.
    """
    if " " in url or not url.isprintable():
        raise ValidationError(
            _not_a_url(
                "it holds a blank, a line break or another character that is none of a URL; a blank is %20 there"
            )
        )


def _not_a_url(why: str) -> str:
    return f"is not a usable URL: {why}."


def _postgresql_url(text: str) -> str:
    """Give the URL in the form that libpq reads; it may name several hosts (libpq, 'Connection URIs')."""
    _refuse_blanks(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _POSTGRESQL_SCHEMES:
        raise ValidationError(_not_a_url("it has to start with postgresql://"))
    before_options = rest.partition("?")[0]
    if before_options.count("@") > 1 or "@" in before_options.partition("/")[2]:
        # A part of the password would be taken for the host or the database, and be named in every outage.
        raise ValidationError(_not_a_url("a password, or a user, with an @ in it needs %40 there, and %2F for a slash"))
    url = f"postgresql://{rest}"
    try:
        options = conninfo_to_dict(url)
    except ProgrammingError as exc:
        raise ValidationError(_not_a_url("libpq cannot parse it")) from exc
    check_postgresql_parameters(options)
    return url


def _redis_url(text: str) -> str:
    if is_sentinel_url(text):
        return _sentinel_url(text)
    parts = _split(text)
    if parts.scheme not in _REDIS_SCHEMES or not (parts.hostname or parts.path):
        raise ValidationError(
            _not_a_url("it has to be redis://host:port/db, rediss://…, redis+sentinel://… or unix://path")
        )
    if parts.scheme != "unix" and parts.path not in {"", "/"} and not parts.path[1:].isdecimal():
        raise ValidationError(_not_a_url("what follows the host has to be the number of a database"))
    check_redis_parameters(parts.scheme, parts.query)
    return text


def _sentinel_url(text: str) -> str:
    _refuse_blanks(text)
    try:
        address = parse_sentinel_url(text)
    except ValueError as exc:
        raise ValidationError(_not_a_url(str(exc))) from None
    parts = urlsplit(address.master_url)
    check_redis_parameters(parts.scheme, parts.query)
    return text


def _host_and_port(text: str) -> tuple[str, int]:
    """Give where to listen."""
    parts = _split(f"//{text}")
    if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
        raise ValidationError("has to be host:port, such as 127.0.0.1:9100.")
    return parts.hostname, parts.port


def _smtp_server(text: str) -> SmtpServer:
    parts = _split(text)
    if parts.scheme not in _SMTP_PORTS or not parts.hostname or parts.path not in {"", "/"}:
        raise ValidationError(
            _not_a_url("it has to be smtp://[user:password@]host[:port], smtps://… or smtp+starttls://…")
        )
    if (parts.username is None) != (parts.password is None):
        raise ValidationError(_not_a_url("a user needs a password, separated by a colon"))
    return SmtpServer(
        security=cast("SmtpSecurity", parts.scheme),
        host=parts.hostname,
        port=parts.port or _SMTP_PORTS[parts.scheme],
        user=None if parts.username is None else _login_text(parts.username),
        password=None if parts.password is None else _login_text(parts.password),
    )


def _login_text(quoted: str) -> str:
    """Return a user or password as it is sent: UTF-8, in which NUL separates the two (RFC 4616)."""
    try:
        text = unquote(quoted, errors="strict")
    except UnicodeDecodeError as exc:
        why = "what is written with % in its user or password has to be UTF-8, such as %C3%BC for \u00fc"
        raise ValidationError(_not_a_url(why)) from exc
    if "\0" in text:
        raise ValidationError(_not_a_url("its user or password holds %00, which no login can send"))
    return text


def _helo_name(text: str) -> None:
    """Refuse what is neither a domain name nor an address in brackets (RFC 5321, section 4.1.1.1)."""
    if len(text) > _LONGEST_HELO_NAME or not _HELO_NAME.fullmatch(text):
        raise ValidationError("has to be a domain name such as mail.example.org, or an address such as [192.0.2.1].")


def _mail_from(text: str) -> Address:
    name, address = parseaddr(text)
    try:
        parsed = Address(display_name=name, addr_spec=address)
    except (ValueError, IndexError, MessageError) as exc:
        raise ValidationError("is not a mail address.") from exc
    is_usable = address.isascii() and text.isprintable() and not may_be_decoded(address)
    if not parsed.username or not parsed.domain or not is_usable:
        raise ValidationError("is not a mail address: write name@domain or 'Name <name@domain>'.")
    return parsed


def _base_url(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValidationError(_not_a_url("it has to be http://host or https://host, without a query"))
    return text.rstrip("/")


def _forwarding_header(text: str) -> ForwardingHeader:
    name = text.lower()
    if name not in {X_FORWARDED_FOR, FORWARDED}:
        raise ValidationError("has to be X-Forwarded-For or Forwarded: the header in which proxies name the client.")
    return cast("ForwardingHeader", name)


def is_behind_tls() -> bool:
    """Return whether BASE_URL is https://: the API speaks no TLS, so that a proxy stands in front of it."""
    return urlsplit(os.environ.get("BASE_URL", "")).scheme == "https"


def _origins(text: str) -> tuple[str, ...]:
    try:
        return parse_origins(text)
    except ValueError as exc:
        raise ValidationError(str(exc)) from None


def _mailbox_url(text: str) -> str | None:
    return None if text == NONE else _base_url(text)


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(","))
    if not all(map(_is_secret, keys)):
        raise ValidationError(f"{_NO_SECRET} Several keys are separated by commas.")
    return keys


def read_ops_token() -> str | None:
    """Read OPS_TOKEN; None when it is not set. Raises SettingsError when it cannot be a secret."""
    given = os.environ.get(_CONSOLE_VARIABLE)
    if given is None:
        return None
    token = given.strip()
    if not _is_secret(token):
        raise SettingsError({_CONSOLE_VARIABLE: [_NO_SECRET]})
    return token


def _is_secret(key: str) -> bool:
    """Tell whether a key is long enough to be one, and text: what is no UTF-8 in the environment cannot be used."""
    return len(key) >= MINIMUM_KEY_CHARACTERS and key.isprintable()
