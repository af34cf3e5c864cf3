"""The settings of a consumer that a test runs in its own process."""

from dataclasses import replace
from email.headerregistry import Address
from typing import Any

from embedded.programs.ports import LOOPBACK
from shared.settings.consumer import ConsumerSettings
from shared.settings.smtp_server import SmtpServer


def consumer_settings(database_url: str, smtp_port: int = 1, **others: Any) -> ConsumerSettings:
    """Return the defaults of a consumer without Redis, with some of them changed."""
    defaults = ConsumerSettings(
        database_url=database_url,
        redis_url="redis://localhost:1/0",
        smtp_server=SmtpServer("smtp", LOOPBACK, smtp_port),
        smtp_timeout_seconds=5.0,
        mail_from=Address("Signup", addr_spec="signup@example.org"),
        base_url="https://example.org",
        secret_keys=("k" * 32,),
        verify_email_minutes=60.0,
        run_lease_seconds=30.0,
        backoff_scale=1.0,
        concurrency=1,
    )
    return replace(defaults, **others)
