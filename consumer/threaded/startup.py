"""Checks the settings and waits for Redis before `rq worker` creates an OutboxWorker."""

import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click
import structlog
from redis import Redis
from redis.exceptions import RedisError

from consumer.redis_connection import check_connection_class, open_as_rq_does, same_redis
from consumer.stages.database import Database
from consumer.task.registry import load_tasks
from redis_client.addresses import client_cause
from shared.database.connections import UnsuitableDatabaseError
from shared.doubling_pause import DoublingPause
from shared.errors import SettingsError
from shared.logs import configure_logging
from shared.settings.consumer import read_consumer_settings
from shared.tracing.configuration import check_tracing

_log = structlog.get_logger(__name__)

EXIT_SETTINGS: Final = 2

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_LONGEST_PAUSE_SECONDS: Final = 2.0
_REDIS_SECONDS: Final = 3.0


def check_settings_and_wait_for_redis(params: Mapping[str, Any]) -> None:
    """Wait until the worker can start.

    Args:
        params: the options of `rq worker`, by name. They say where Redis is.

    Raises:
        SystemExit: a setting is missing or malformed, or a module of tasks cannot be used; its name was printed.

    """
    # A worker that restarted has blocked them. A signal that is pending ends this process here, with nothing in hand.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    configure_logging()
    try:
        settings = read_consumer_settings()
        load_tasks(settings.task_modules)
        check_tracing()
        rq_client = open_as_rq_does(params)
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    _refuse_unsuitable_database(settings.database_url)
    client = same_redis(rq_client, _REDIS_SECONDS, _REDIS_SECONDS)
    pause = DoublingPause(0.1, _LONGEST_PAUSE_SECONDS)
    logged: str | None = None
    while (error := _failure(client)) is not None:
        if error != logged:
            _log.warning("redis.unavailable", error=error)
            logged = error
        time.sleep(pause.next())
    client.close()


def _refuse_unsuitable_database(database_url: str) -> None:
    """Exit if the database can never be used. An unavailable PostgreSQL is no reason: each message waits for it."""
    database = Database(database_url)
    try:
        database.refuse_unsuitable()
    except UnsuitableDatabaseError as exc:
        click.echo(f"cannot start, {exc}", err=True)
        sys.exit(EXIT_SETTINGS)
    database.close()


def stop_without_connection_class(params: Mapping[str, Any]) -> None:
    """Exit with the name of the setting if one of RQ's commands cannot use RQ_REDIS_URL."""
    try:
        check_connection_class(params)
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)


def _failure(client: Redis) -> str | None:
    try:
        client.ping()
    except (RedisError, OSError) as exc:
        return client_cause(exc, client)
    return None
