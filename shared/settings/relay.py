"""The settings of the relay."""

from dataclasses import dataclass, field

from environs import Env, ValidationError, validate

from shared.settings.parsing import (
    DEFAULT_UNVERIFIED_DAYS,
    raise_problems,
    read_optional,
    read_parsed,
    read_seconds,
    read_unverified_days,
    split_url,
)
from shared.settings.postgresql_url import parse_postgresql_url
from shared.settings.redis_url import parse_redis_url


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The settings of the relay.

    Attributes:
        database_url: PostgreSQL.
        listen_url: a direct connection to it, for LISTEN.
        redis_url: Redis, or the Sentinels that know it.
        key_prefix: what RQ's keys begin with.
        publish_lease_seconds: the age at which the relay checks whether a published message's job is still in Redis.
        run_lease_seconds: how long a worker's claim lasts.
        batch_size: the largest number of messages that are published together.
        poll_seconds: the longest pause between two searches for due messages.
        keep_done_days: the age in days at which finished messages are deleted.
        metrics_address: where /metrics is served; None for nowhere.
        unverified_days: the age in days at which an unverified account is deleted.

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


def read_relay_settings() -> RelaySettings:
    """Read the relay's settings. Raises SettingsError naming every variable that is missing or malformed."""
    env = Env(eager=False)
    database_url = read_parsed(env, "DATABASE_URL", parse_postgresql_url)
    listen_url = read_parsed(env, "OUTBOX_LISTEN_URL", parse_postgresql_url, database_url or "postgresql://")
    redis_url = read_parsed(env, "RQ_REDIS_URL", parse_redis_url, "redis://localhost:6379/0")
    key_prefix = env.str("RQ_KEY_PREFIX", "rq", validate=validate.Regexp(r"[A-Za-z0-9_.:{}-]+\Z"))
    publish_lease = read_seconds(env, "OUTBOX_PUBLISH_LEASE_SECONDS", 30.0)
    run_lease = read_seconds(env, "OUTBOX_RUN_LEASE_SECONDS", 60.0)
    batch_size = env.int("OUTBOX_BATCH_SIZE", 1000, validate=validate.Range(min=1, max=10_000))
    poll = read_seconds(env, "OUTBOX_POLL_SECONDS", 1.0)
    keep_done_days = env.float("OUTBOX_KEEP_DONE_DAYS", 7.0, validate=validate.Range(min=0, max=36_500))
    metrics_address = read_optional(env, "OUTBOX_METRICS_ADDRESS", _host_and_port)
    unverified_days = read_unverified_days(env)
    raise_problems(env)
    return RelaySettings(
        database_url=database_url,
        listen_url=listen_url,
        redis_url=redis_url,
        key_prefix=key_prefix,
        publish_lease_seconds=publish_lease,
        run_lease_seconds=run_lease,
        batch_size=batch_size,
        poll_seconds=poll,
        keep_done_days=keep_done_days,
        metrics_address=metrics_address,
        unverified_days=unverified_days,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    """Return the address to listen on. Raises ValidationError."""
    parts = split_url(f"//{text}")
    if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
        raise ValidationError("has to be host:port, such as 127.0.0.1:9100.")
    return parts.hostname, parts.port
