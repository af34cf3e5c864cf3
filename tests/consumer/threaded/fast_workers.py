"""OutboxWorkers with shorter times, for RQ_WORKER_CLASS: `tests.consumer.threaded.fast_workers.FastHeartbeat`."""

import os
import signal
import time
from dataclasses import replace
from typing import NoReturn

from consumer import worker
from consumer.threaded.outbox_worker import OutboxWorker

MODULE = __name__


class _FastHeartbeat(OutboxWorker):
    timings = replace(OutboxWorker.timings, heartbeat_seconds=0.5)


class _SoonStarving(OutboxWorker):
    timings = replace(OutboxWorker.timings, starvation_seconds=0.0)


class _ShortGrace(OutboxWorker):
    timings = replace(OutboxWorker.timings, grace_seconds=0.5)


class _SignalledAtRestart(_ShortGrace):
    """It gets SIGTERM directly before it restarts."""

    def replace_process(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # any thread that the signal may reach has it now
        super().replace_process()


_WORKERS = {
    "FastHeartbeat": _FastHeartbeat,
    "SoonStarving": _SoonStarving,
    "ShortGrace": _ShortGrace,
    "SignalledAtRestart": _SignalledAtRestart,
}


def __getattr__(name: str) -> object:
    """Return the class once consumer.worker has checked the settings and waited for Redis, as for the plain one."""
    if name not in _WORKERS:
        raise AttributeError(name)
    getattr(worker, OutboxWorker.__name__)
    return _WORKERS[name]
