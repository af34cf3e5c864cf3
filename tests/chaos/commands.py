"""The processes of a run: those of the service as they are started on a laptop, with short leases and names.

Relays and workers are killed the most: they are forked from a process that has imported what they need.
"""

from collections.abc import Mapping
from dataclasses import replace
from signal import SIGKILL
from typing import Final

from embedded.programs.program import Command, Program
from embedded.stack import Stack
from shared.database.connections import IDLE_IN_TRANSACTION_SECONDS
from tests.addresses import with_parameter
from tests.programs.preloading import Preloaded, PreloadedProgram
from tests.programs.processes import worker_module

SECRET_KEY: Final = "the key of the chaos runs: 32 characters and more"  # noqa: S105 - it protects nothing
RUN_LEASE_SECONDS: Final = 6.0
IDLE_LIMIT_SECONDS: Final = float(IDLE_IN_TRANSACTION_SECONDS)

# So that what a lease repairs is repaired while the run lasts.
_SHORT: Final = {
    "OUTBOX_RUN_LEASE_SECONDS": f"{RUN_LEASE_SECONDS:g}",
    "OUTBOX_PUBLISH_LEASE_SECONDS": "3",
    "OUTBOX_BACKOFF_SCALE": "0.05",
}
_OF_WORKER: Final = {"SMTP_TIMEOUT_SECONDS": "2", "OUTBOX_TASKS": "tests.chaos.tasks,consumer.tasks"}
_CLASS_NAME: Final = "RQ_WORKER_CLASS"
WORKER_CLASSES: Final = ("own", "stock")
MARK_NAME: Final = "CHAOS_RUN"
"""The variable by which a run finds its processes again."""


def service(
    stack: Stack, mark: str, origin: Preloaded, *, worker_class: str, relays: int, workers: int
) -> list[Program]:
    """Describe the API, the relays and the workers, each marked as this run's; the origin carries its mark too."""
    api, relay = stack.api.command, stack.relay.command
    worker = replace(stack.worker.command, argv=worker_module())
    if worker_class == "stock":
        worker = replace(worker, env={name: value for name, value in worker.env.items() if name != _CLASS_NAME})
    forked = [
        *(_named(relay, f"relay-{number}", mark, _SHORT) for number in range(1, relays + 1)),
        *(_named(worker, f"worker-{number}", mark, _SHORT | _OF_WORKER) for number in range(1, workers + 1)),
    ]
    return [Program(_named(api, "api", mark)), *(PreloadedProgram(command, origin) for command in forked)]


def _named(command: Command, name: str, mark: str, settings: Mapping[str, str] | None = None) -> Command:
    """Give a process a name, by which PostgreSQL knows it too: the record of a message then says who did what.

    It dies with us by SIGKILL, the one signal that also reaches a process that is stopped.
    """
    database_url = with_parameter(command.env["DATABASE_URL"], f"application_name={name}")
    env = {**command.env, **(settings or {}), "DATABASE_URL": database_url, MARK_NAME: mark}
    log_file = command.log_file.with_name(f"{name}.log")
    return replace(command, name=name, env=env, log_file=log_file, stop_signal=SIGKILL)
