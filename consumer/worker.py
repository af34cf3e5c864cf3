"""The worker class for RQ_WORKER_CLASS=consumer.worker.OutboxWorker.

RQ's command line pings Redis before it creates the worker, and exits if Redis is unavailable. It looks up the class
even earlier, and this module answers the lookup itself (PEP 562): for `rq worker` it checks the settings and waits for
Redis first. For RQ's other commands it checks that they can read RQ_REDIS_URL. Any other lookup just returns the
class.
"""

import click

from consumer.threaded import outbox_worker
from consumer.threaded.startup import check_settings_and_wait_for_redis, stop_without_connection_class

_RQ_COMMAND = "worker"


def __getattr__(name: str) -> object:
    """Return the worker class, for `rq worker` only once the worker can start."""
    if name != "OutboxWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == _RQ_COMMAND:
        check_settings_and_wait_for_redis(context.params)
    elif context is not None:
        stop_without_connection_class(context.params)
    return outbox_worker.OutboxWorker
