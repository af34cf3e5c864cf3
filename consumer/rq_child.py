"""What a message's work knows of RQ's stock worker, which runs it in a child process and waits for its end."""

import math
import signal
import threading

from redis.exceptions import RedisError
from rq import get_current_job
from rq.worker import BaseWorker

from consumer.redis_connection import same_redis

_PATIENCE_SECONDS = 2.0


def end_job_within(seconds: float) -> None:
    """Let RQ end this job when so much time has gone by from now, instead of after the job's own limit.

    The relay's limit leaves room for a mail server that answers late. What hangs otherwise is to end with its lease.
    """
    is_rqs_alarm = threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGALRM))
    if is_rqs_alarm:
        signal.alarm(math.ceil(seconds))


def was_worker_told_to_stop() -> bool:
    """Return whether this job's worker waits for its end to leave. It says so in Redis; without Redis nobody knows."""
    job = get_current_job()
    if job is None or job.worker_name is None:
        return False
    try:
        redis = same_redis(job.connection, _PATIENCE_SECONDS, _PATIENCE_SECONDS)
        try:
            key = f"{BaseWorker.redis_worker_namespace_prefix}{job.worker_name}"
            return bool(redis.hexists(key, "shutdown_requested_date"))
        finally:
            redis.close()
    except (RedisError, OSError):
        return False
