"""The processes of a run: those of the service as they are started on a laptop, with short leases and names."""

from collections.abc import Mapping
from dataclasses import replace
from signal import SIGKILL
from typing import Final

from embedded.programs import Command
from embedded.stack import Stack
from shared.database import IDLE_IN_TRANSACTION_SECONDS

SECRET_KEY: Final = "the key of the chaos runs: 32 characters and more"  # noqa: S105 - it protects nothing
RUN_LEASE_SECONDS: Final = 6.0
IDLE_LIMIT_SECONDS: Final = float(IDLE_IN_TRANSACTION_SECONDS)

# So that what a lease repairs is repaired while the run lasts.
_SHORT: Final = {
    "OUTBOX_RUN_LEASE_SECONDS": f"{RUN_LEASE_SECONDS:g}",
    "OUTBOX_PUBLISH_LEASE_SECONDS": "3",
    "OUTBOX_BACKOFF_SCALE": "0.05",
}
_SMTP: Final = {"SMTP_TIMEOUT_SECONDS": "2"}
_CLASS_NAME: Final = "RQ_WORKER_CLASS"
WORKER_CLASSES: Final = ("own", "stock")
MARK_NAME: Final = "CHAOS_RUN"
"""The variable by which a run finds its processes again."""


def service(stack: Stack, mark: str, *, worker_class: str, relays: int, workers: int) -> list[Command]:
    """Describe the API, the relays and the workers, each marked as this run's."""
    api, relay, worker = stack.api.command, stack.relay.command, stack.worker.command
    if worker_class == "stock":
        worker = replace(worker, env={name: value for name, value in worker.env.items() if name != _CLASS_NAME})
    return [
        _named(api, "api", mark),
        *(_named(relay, f"relay-{number}", mark, _SHORT) for number in range(1, relays + 1)),
        *(_named(worker, f"worker-{number}", mark, _SHORT | _SMTP) for number in range(1, workers + 1)),
    ]


def _named(command: Command, name: str, mark: str, settings: Mapping[str, str] | None = None) -> Command:
    """Give a process a name, by which PostgreSQL knows it too: the record of a message then says who did what.

    It dies with us by SIGKILL, the one signal that also reaches a process that is stopped.
    """
    database_url = f"{command.env['DATABASE_URL']}?application_name={name}"
    env = {**command.env, **(settings or {}), "DATABASE_URL": database_url, MARK_NAME: mark}
    log_file = command.log_file.with_name(f"{name}.log")
    return replace(command, name=name, env=env, log_file=log_file, stop_signal=SIGKILL)
