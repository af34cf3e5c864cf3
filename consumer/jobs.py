"""The one function that a job on Redis may run, as RQ's stock worker calls it."""

from functools import partial
from typing import Final

import psycopg
import structlog

from consumer.rq_child import end_job_within, was_worker_told_to_stop
from consumer.stages.database import Database
from consumer.stages.processor import Processor
from shared.database.connections import UnsuitableDatabaseError
from shared.errors import SettingsError
from shared.logs import configure_logging
from shared.outbox import claims
from shared.rq_format.ids import is_message_id
from shared.settings.processes import read_consumer_settings, read_database_url
from shared.tracing.spans import configure_tracing, tracing

_log = structlog.get_logger(__name__)

_SETTINGS_SECONDS: Final = 30.0
"""A worker that cannot start leaves the message alone for this long, so that a healthy one may take it."""


def run_message(message_id: object) -> None:
    """Work on one message. Lets no exception out: RQ would keep its text, and that may hold an address.

    RQ's stock worker calls this in a process of its own, which ends with the job. Retries are PostgreSQL's business:
    whatever becomes of the message, the job itself is done.
    """
    configure_logging()
    if not is_message_id(message_id):
        _log.error("job.refused", meaning="the job names no message")
        return
    try:
        settings = read_consumer_settings()
        configure_tracing("outbox-worker")
    except SettingsError as exc:
        _log.error("settings.refused", message_id=message_id, problems=exc.problems)
        _put_back(message_id, f"a worker cannot start: {', '.join(sorted(exc.problems))}")
        return
    end_with_the_lease = partial(end_job_within, settings.run_lease_seconds)
    end_with_the_lease()
    processor = Processor(settings, is_leaving=was_worker_told_to_stop, after_renewal=end_with_the_lease)
    try:
        processor.refuse_unsuitable()
        processor.process(message_id)
    except UnsuitableDatabaseError as exc:
        _log.error("database.refused", message_id=message_id, reason=str(exc))
        _put_back(message_id, f"a worker cannot start: {exc}")
    except Exception as exc:  # noqa: BLE001 - RQ's own timeout between two steps: a relay takes the message back
        _log.error("message.interrupted", message_id=message_id, error=type(exc).__name__)
    finally:
        processor.close()
        tracing().flush()


def _put_back(message_id: int, reason: str) -> None:
    """Return the message without spending an attempt; if even that is impossible the relay's reaper does it."""
    try:
        database = Database(read_database_url(), any_encoding=True)
    except SettingsError as exc:
        _log.warning("message.not_released", message_id=message_id, error=type(exc).__name__)
        return
    try:
        with database.transaction() as connection:
            claims.release_unclaimed(connection, message_id, reason, _SETTINGS_SECONDS)
        database.close()
    except psycopg.Error as exc:
        _log.warning("message.not_released", message_id=message_id, error=database.cause(exc))
