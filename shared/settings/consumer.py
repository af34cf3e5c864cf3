"""The settings of the consumer, in RQ's stock worker and in OutboxWorker alike."""

import re
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from pathlib import Path
from typing import Final

from environs import Env, ValidationError, validate

from shared.addresses import may_be_decoded
from shared.errors import SettingsError
from shared.settings.parsing import (
    Network,
    parse_base_url,
    parse_networks,
    parse_secret_keys,
    positive,
    raise_problems,
    read_optional,
    read_parsed,
    read_seconds,
)
from shared.settings.postgresql_url import parse_postgresql_url
from shared.settings.redis_url import parse_redis_url
from shared.settings.smtp_server import SmtpServer, parse_helo_name, parse_smtp_server

DEFAULT_TASK_MODULES: Final = ("consumer.tasks",)

_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """The settings of the consumer.

    Attributes:
        database_url: PostgreSQL.
        redis_url: Redis, or the Sentinels that know it.
        smtp_server: the mail server.
        smtp_timeout_seconds: the longest wait for it in one step.
        mail_from: the sender of every mail.
        base_url: what the links in mails begin with.
        secret_keys: the keys of those links; the first one signs.
        verify_email_minutes: the life of a link.
        run_lease_seconds: how long a claim lasts.
        backoff_scale: multiplies the delay before a retry.
        concurrency: how many messages an OutboxWorker sends at once: its sender threads, and the most connections
            that it opens to the mail server.
        smtp_helo_name: the name that EHLO gives; None for the address of our end.
        task_modules: the modules that list the tasks.
        templates_folder: where each template of a mail is looked for first.
        webhook_networks: the networks that webhooks may be sent to although their addresses are not public.

    """

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
    task_modules: tuple[str, ...] = DEFAULT_TASK_MODULES
    templates_folder: Path | None = None
    webhook_networks: tuple[Network, ...] = ()

    @property
    def send_deadline_seconds(self) -> float:
        """The longest time for one send, from the name lookup to the final answer: two thirds of the lease.

        The last third is left for the acknowledgement to reach PostgreSQL before the lease is over.
        """
        return self.run_lease_seconds * 2 / 3


def read_consumer_settings() -> ConsumerSettings:
    """Read the consumer's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = read_parsed(env, "DATABASE_URL", parse_postgresql_url)
    redis_url = read_parsed(env, "RQ_REDIS_URL", parse_redis_url, "redis://localhost:6379/0")
    smtp_server = read_parsed(env, "SMTP_URL", parse_smtp_server, "smtp://localhost:25")
    smtp_timeout = env.float("SMTP_TIMEOUT_SECONDS", None, validate=positive(86_400))
    helo_name = read_optional(env, "SMTP_HELO_NAME", parse_helo_name)
    mail_from = read_parsed(env, "MAIL_FROM", _mail_from)
    base_url = read_parsed(env, "BASE_URL", parse_base_url, "http://localhost:8080")
    secret_keys = read_parsed(env, "SECRET_KEY", parse_secret_keys)
    verify_minutes = env.float("VERIFY_EMAIL_MINUTES", 1440.0, validate=validate.Range(min=0, max=525_600 * 10))
    run_lease = read_seconds(env, "OUTBOX_RUN_LEASE_SECONDS", 60.0)
    backoff_scale = env.float("OUTBOX_BACKOFF_SCALE", 1.0, validate=validate.Range(min=0, max=1000))
    concurrency = env.int("WORKER_CONCURRENCY", 10, validate=validate.Range(min=1, max=1000))
    task_modules = read_optional(env, "OUTBOX_TASKS", _task_modules)
    templates_folder = read_optional(env, "TEMPLATES_FOLDER", _folder)
    webhook_networks = read_optional(env, "WEBHOOK_ALLOWED_NETWORKS", _networks)
    raise_problems(env)
    # A short lease shortens the default. Only a value that was set can contradict the lease.
    smtp_timeout = min(10.0, run_lease * 2 / 3) if smtp_timeout is None else smtp_timeout
    settings = ConsumerSettings(
        database_url=database_url,
        redis_url=redis_url,
        smtp_server=smtp_server,
        smtp_timeout_seconds=smtp_timeout,
        mail_from=mail_from,
        base_url=base_url,
        secret_keys=secret_keys,
        verify_email_minutes=verify_minutes,
        run_lease_seconds=run_lease,
        backoff_scale=backoff_scale,
        concurrency=concurrency,
        smtp_helo_name=helo_name,
        task_modules=task_modules or DEFAULT_TASK_MODULES,
        templates_folder=templates_folder,
        webhook_networks=webhook_networks or (),
    )
    if settings.smtp_timeout_seconds > settings.send_deadline_seconds:
        message = (
            "must not be longer than two thirds of OUTBOX_RUN_LEASE_SECONDS, the deadline of a whole send: lower it or"
            " raise the lease. The greeting and the answer to a mail's content get all of that time anyway."
        )
        raise SettingsError({"SMTP_TIMEOUT_SECONDS": [message]})
    return settings


def _networks(text: str) -> tuple[Network, ...]:
    return parse_networks(text, "'10.20.0.0/16,fd12::/64'")


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


def _task_modules(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(map(_MODULE.fullmatch, names)):
        raise ValidationError("is not a list of modules: write names with commas between, such as myapp.tasks.")
    return names


def _folder(text: str) -> Path:
    folder = Path(text)
    if "\0" in text or not folder.is_dir():
        raise ValidationError("is not a folder.")
    return folder.resolve()
