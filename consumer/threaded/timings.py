"""The pauses and limits of an OutboxWorker that are not settings."""

from dataclasses import dataclass

from shared.outbox.messages import STARVED_SECONDS


@dataclass(frozen=True, slots=True)
class WorkerTimings:
    """How long an OutboxWorker waits. Tests use shorter times.

    Attributes:
        heartbeat_seconds: between two updates of the worker's hash in Redis.
        starvation_seconds: how long the first queue may go without being empty before one job in ten is taken from the
            last queue first.
        grace_seconds: the time for an outcome's COMMIT. It is added to a send's deadline when the worker shuts down,
            and to a lease before a thread counts as stuck.

    """

    heartbeat_seconds: float = 5.0
    starvation_seconds: float = STARVED_SECONDS
    grace_seconds: float = 5.0
