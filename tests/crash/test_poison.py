"""A message that kills its worker becomes a dead letter after its attempts and does not block the others."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import pytest

from embedded.programs.program import Program
from tests.consumer.threaded import fast_workers
from tests.crash.parallel import run_in_parallel
from tests.crash.scene import STOCK_WORKER, Scene, Stage
from tests.rows import message

pytestmark = pytest.mark.e2e

TIMEOUT_SECONDS: Final = 90.0
OTHERS: Final = 19
SLOTS: Final = 5
MAX_RETRIES: Final = 2
ATTEMPTS: Final = MAX_RETRIES + 1

OUTBOX_WORKER: Final = {"RQ_WORKER_CLASS": f"{fast_workers.MODULE}.ShortGrace"}

CRASHED: Final = "the worker died or froze: its lease ended without a result"


@dataclass(frozen=True)
class Poison:
    """A poison message and what it does to its worker.

    Attributes:
        task: the task among `poisons`.
        worker_class: who works on it.
        is_deadly: whether the worker's process dies of it.
        reason: what the dead letter says.
        attempts: how many it takes.

    """

    task: str
    worker_class: Mapping[str, str]
    is_deadly: bool
    reason: str
    attempts: int = ATTEMPTS


POISONS: Final = {
    "OutboxWorker: exit": Poison("task:exit", OUTBOX_WORKER, is_deadly=True, reason=CRASHED),
    "OutboxWorker: killed": Poison("task:killed", OUTBOX_WORKER, is_deadly=True, reason=CRASHED),
    "OutboxWorker: hang": Poison(
        "task:hang",
        OUTBOX_WORKER,
        is_deadly=False,
        reason="the task ran for longer than 1 s for the second time",
        attempts=2,
    ),
    "OutboxWorker: memory": Poison(
        "task:memory", OUTBOX_WORKER, is_deadly=False, reason="MemoryError while the message was prepared"
    ),
    "stock worker: exit": Poison("task:exit", STOCK_WORKER, is_deadly=False, reason=CRASHED),
    "stock worker: killed": Poison("task:killed", STOCK_WORKER, is_deadly=False, reason=CRASHED),
    "stock worker: hang": Poison(
        "task:hang",
        STOCK_WORKER,
        is_deadly=False,
        reason="the task ran for longer than 1 s for the second time",
        attempts=2,
    ),
    "stock worker: memory": Poison(
        "task:memory", STOCK_WORKER, is_deadly=False, reason="MemoryError while the message was prepared"
    ),
}

SHORT: Final = {"OutboxWorker: exit", "OutboxWorker: hang", "stock worker: killed"}
"""One for each thing that happens: the process dies, a thread is stuck, a work horse dies."""


@pytest.fixture(scope="module")
def scenes(request: pytest.FixtureRequest, stage: Stage) -> Iterator[dict[str, Future[None]]]:
    with run_in_parallel(request, lambda key: run(stage, POISONS[key])) as futures:
        yield futures


@pytest.mark.parametrize("key", [pytest.param(key, marks=() if key in SHORT else pytest.mark.long) for key in POISONS])
def test_a_poison_message_becomes_a_dead_letter_and_the_others_arrive(
    key: str, scenes: dict[str, Future[None]]
) -> None:
    scenes[key].result()


def run(stage: Stage, poison: Poison) -> None:
    deaths = 0

    with stage.scene(WORKER_CONCURRENCY=str(SLOTS), OUTBOX_RUN_LEASE_SECONDS="3") as scene:
        others = scene.sign_up(OTHERS // 2)
        [id_] = scene.sign_up(task=poison.task)
        scene.connection.execute("UPDATE outbox SET max_retries = %s WHERE id = %s", [MAX_RETRIES, id_])
        others += scene.sign_up(OTHERS - len(others))
        scene.start_relay()
        worker = start_worker(scene, poison)
        pid = worker.pid

        def supervise() -> None:
            nonlocal deaths
            if not worker.running:
                deaths += 1
                worker.start()

        scene.wait_for_quiet(TIMEOUT_SECONDS, supervise)
        row = message(scene.connection, id_)
        copies = scene.copies(others)

        assert (row["status"], row["attempt"], row["last_error"]) == ("dead", poison.attempts, poison.reason)
        assert scene.count() == 1
        assert min(copies.values()) == 1
        if poison.is_deadly:
            # A death before the poison's first return is no attempt of it; each takes the neighbours' claims with it.
            assert ATTEMPTS <= deaths <= ATTEMPTS + 1
            assert sum(number - 1 for number in copies.values()) <= deaths * (SLOTS - 1)
        else:
            assert (deaths, worker.pid, set(copies.values())) == (0, pid, {1})
        if poison is POISONS["OutboxWorker: hang"]:
            assert len(said(scene, worker, "task.late")) == poison.attempts


def start_worker(scene: Scene, poison: Poison) -> Program:
    tasks = {"OUTBOX_TASKS": "consumer.tasks,tests.crash.poisons"}
    return scene.start("worker", "worker", env={**tasks, **poison.worker_class})


def said(scene: Scene, program: Program, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in scene.log(program).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]
