"""RQ_WORKER_CLASS=consumer.worker.OutboxWorker.

RQ's command line pings Redis before it builds the worker and gives up at once when Redis is away. Looking up the class
that RQ_WORKER_CLASS names is the one thing of ours that it does earlier; this module answers that look-up itself
(PEP 562), so that `rq worker` checks its settings and waits for Redis there. RQ's other commands learn whether they can
read RQ_REDIS_URL. Any other look-up just gets the class.
"""

import click

from consumer.threaded import outbox_worker
from consumer.threaded.startup import check_settings_and_wait_for_redis, stop_without_connection_class

_RQ_COMMAND = "worker"


def __getattr__(name: str) -> object:
    """Give the worker class; to `rq worker` only when the worker could start."""
    if name != "OutboxWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == _RQ_COMMAND:
        check_settings_and_wait_for_redis(context.params)
    elif context is not None:
        stop_without_connection_class(context.params)
    return outbox_worker.OutboxWorker
