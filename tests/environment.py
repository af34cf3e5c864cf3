"""The environment of the tests: no setting from outside, and temporary folders in memory."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it has a random name
_ENOUGH_MEMORY = 4 * 2**30

_IGNORED_NAMES = {
    "DATABASE_URL",
    "MAIL_FROM",
    "BASE_URL",
    "MAILBOX_URL",
    "PORT",
    "SECRET_KEY",
    "VERIFY_EMAIL_MINUTES",
    "SIGNUP_MAIL_DELAY_SECONDS",
    "TRUSTED_PROXIES",
    "FORWARDING_HEADER",
    "SIGNUP_RATE_LIMIT",
    "VERIFY_RATE_LIMIT",
    "RESEND_RATE_LIMIT",
    "OPS_LOGIN_RATE_LIMIT",
    "RATE_LIMIT_EXEMPT",
    "WORKER_CONCURRENCY",
    "WEB_CONCURRENCY",
    "KEEPALIVE_SECONDS",
    "CORS_ALLOWED_ORIGINS",
    "PASSWORD_MIN_LENGTH",
    "UNVERIFIED_DAYS",
    "MAILBOX_MAILS",
    "MAILBOX_MAILS_PER_HOUR",
    "MAILBOX_MAILS_OF_CLIENT",
    "MAILBOX_MAILS_PER_HOUR_OF_CLIENT",
    "DOMAIN_MAILS_PER_HOUR",
    "TOTAL_MAILS_PER_HOUR",
    "OPS_TOKEN",
    "GUNICORN_CMD_ARGS",
    "TEMPLATES_FOLDER",
    "WEBHOOK_ALLOWED_NETWORKS",
}
_IGNORED_PREFIXES = ("OUTBOX_", "RQ_", "SMTP_", "PG", "REDIS_", "FLASK_")


def forget_settings() -> None:
    """Delete the settings of the environment; with a given Redis, have RQ's keys apart from those of others."""
    for name in filter(is_ignored, list(os.environ)):
        del os.environ[name]
    if "TEST_REDIS_URL" in os.environ:
        # RQ reads it once, when it is imported. Processes that tests start inherit it.
        os.environ["RQ_KEY_PREFIX"] = f"outbox-test-{secrets.token_hex(8)}"


def is_ignored(name: str) -> bool:
    """Return whether the tests forget this variable of the environment."""
    return name in _IGNORED_NAMES or name.startswith(_IGNORED_PREFIXES)


def keep_files_in_memory() -> None:
    """Let the servers and programs of the tests have their folders in memory, unless TMPDIR says where.

    On a disk, half of a run is spent on making and removing the files of databases.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _ENOUGH_MEMORY:
        # Processes that tests start inherit it.
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
