"""The entry point of the jobs on Redis: the one function that RQ's stock worker may run."""

import math
import signal
import threading
from typing import Final

import psycopg
import structlog
from redis.exceptions import RedisError
from rq import get_current_job
from rq.worker import BaseWorker

from consumer.redis_connection import same_redis
from consumer.stages.database import Database
from consumer.stages.processor import Processor
from consumer.task.registry import load_tasks
from shared.database.connections import UnsuitableDatabaseError
from shared.errors import SettingsError
from shared.logs import configure_logging
from shared.outbox.claiming import releases
from shared.rq_format.ids import is_message_id
from shared.settings.consumer import read_consumer_settings
from shared.settings.postgresql_url import read_database_url
from shared.tracing.configuration import configure_tracing
from shared.tracing.spans import tracing

_log = structlog.get_logger(__name__)

_SETTINGS_SECONDS: Final = 30.0
"""How long a worker that cannot start delays its message, so that another worker may take it."""

_REDIS_SECONDS: Final = 2.0


def run_message(message_id: object) -> None:
    """Process one message. Raises nothing: RQ would store the exception's text, which may contain an address.

    RQ's stock worker calls this in a child process that ends with the job. PostgreSQL holds the retries, so the job
    always succeeds.
    """
    configure_logging()
    if not is_message_id(message_id):
        _log.error("job.refused", meaning="the job names no message")
        return
    try:
        settings = read_consumer_settings()
        tasks = load_tasks(settings.task_modules)
        configure_tracing("outbox-worker")
    except SettingsError as exc:
        _log.error("settings.refused", message_id=message_id, problems=exc.problems)
        _release_unclaimed(message_id, f"a worker cannot start: {', '.join(sorted(exc.problems))}")
        return
    end_job_within(settings.run_lease_seconds)
    processor = Processor(settings, tasks, shutting_down=was_worker_told_to_stop, limit_job=end_job_within)
    try:
        processor.refuse_unsuitable()
        processor.process(message_id)
    except UnsuitableDatabaseError as exc:
        _log.error("database.refused", message_id=message_id, reason=str(exc))
        _release_unclaimed(message_id, f"a worker cannot start: {exc}")
    except Exception as exc:  # noqa: BLE001 - RQ's timeout between two steps: a relay reaps the claim
        _log.error("message.interrupted", message_id=message_id, error=type(exc).__name__)
    finally:
        processor.close()
        tracing().flush()


def end_job_within(seconds: float) -> None:
    """Make RQ end this job after this time from now, instead of after the job's own limit.

    The job's limit, which the relay sets, leaves time for a late answer of the mail server. A job that hangs for
    another reason has to end with its lease.
    """
    has_rqs_alarm = threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGALRM))
    if has_rqs_alarm:
        signal.alarm(math.ceil(seconds))


def was_worker_told_to_stop() -> bool:
    """Return whether this job's worker is shutting down. It says so in Redis; without Redis the answer is False."""
    job = get_current_job()
    if job is None or job.worker_name is None:
        return False
    try:
        redis = same_redis(job.connection, _REDIS_SECONDS, _REDIS_SECONDS)
        try:
            key = f"{BaseWorker.redis_worker_namespace_prefix}{job.worker_name}"
            return bool(redis.hexists(key, "shutdown_requested_date"))
        finally:
            redis.close()
    except (RedisError, OSError):
        return False


def _release_unclaimed(message_id: int, reason: str) -> None:
    """Release the message without spending an attempt. If even that fails, the relay's reaper does it."""
    try:
        database = Database(read_database_url(), any_encoding=True)
    except SettingsError as exc:
        _log.warning("message.not_released", message_id=message_id, error=type(exc).__name__)
        return
    try:
        with database.transaction() as connection:
            releases.release_unclaimed(connection, message_id, reason, _SETTINGS_SECONDS)
        database.close()
    except psycopg.Error as exc:
        _log.warning("message.not_released", message_id=message_id, error=database.cause(exc))
