"""The settings of a consumer in a test."""

from collections.abc import Sequence
from email.headerregistry import Address
from email.utils import parseaddr
from pathlib import Path
from typing import Final, TypedDict

from consumer.task.registry import TaskRegistry, load_tasks
from shared.settings.consumer import DEFAULT_TASK_MODULES, ConsumerSettings
from shared.settings.smtp_server import SmtpServer

_LEASE_SECONDS: Final = 3600.0
"""Longer than any test: nothing renews a lease."""


class Site(TypedDict, total=False):
    """What a test may change of the site whose mails are prepared.

    Attributes:
        base_url: what links begin with.
        mail_from: the sender of every mail.
        secret_key: signs links; at least 32 characters.
        templates_folder: where templates are looked for first.

    """

    base_url: str
    mail_from: str
    secret_key: str
    templates_folder: str | Path


def settings_of(site: Site, database_url: str) -> ConsumerSettings:
    """Return the settings of a consumer that works for this site, with values for tests where it names none."""
    name, address = parseaddr(site.get("mail_from", "Test <test@example.com>"))
    folder = site.get("templates_folder")
    return ConsumerSettings(
        database_url=database_url,
        redis_url="redis://localhost:6379/0",
        smtp_server=SmtpServer("smtp", "localhost", 25),
        smtp_timeout_seconds=10.0,
        mail_from=Address(display_name=name, addr_spec=address),
        base_url=site.get("base_url", "http://localhost:8080"),
        secret_keys=(site.get("secret_key", "the secret key of tests: not for use"),),
        verify_email_minutes=1440.0,
        run_lease_seconds=_LEASE_SECONDS,
        backoff_scale=1.0,
        concurrency=1,
        templates_folder=None if folder is None else Path(folder).resolve(),
    )


def tasks_of(modules: str | Sequence[str] | None) -> TaskRegistry:
    """Return the tasks that these modules list; by default those of the project.

    Raises:
        SettingsError: it names each module that cannot be used, and why.

    """
    if modules is None:
        modules = DEFAULT_TASK_MODULES
    return load_tasks([modules] if isinstance(modules, str) else modules)
