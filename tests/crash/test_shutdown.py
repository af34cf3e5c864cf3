"""SIGTERM under load loses nothing, repeats nothing, and ends the process in time. A second SIGTERM changes nothing."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from signal import SIGTERM
from typing import Final

import pytest

from embedded.programs.program import Program
from tests.crash.parallel import run_in_parallel
from tests.crash.scene import OUTBOX_WORKER, STOCK_WORKER, Scene, Stage
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

TIMEOUT_SECONDS: Final = 60.0
RELAY_STOPS_WITHIN: Final = 5.0
GRACE_SECONDS: Final = 5.0
"""What OutboxWorker adds to a send's deadline for the commits of the outcomes."""

SLACK: Final = 3.0

UNHURRIED: Final = {
    "OUTBOX_PUBLISH_LEASE_SECONDS": "30",
    "OUTBOX_RUN_LEASE_SECONDS": "15",
    "WORKER_CONCURRENCY": "5",
}
"""Leases that outlast the test, so that the relay returns nothing."""

AT_ONCE: Final = 3
"""Fewer scenes at a time than elsewhere, since these measure durations."""


def terminate(program: Program, times: int) -> float:
    """Send SIGTERM, wait for the end, and return how long it took."""
    started = time.monotonic()
    os.kill(program.pid, SIGTERM)
    if times > 1:
        time.sleep(0.1)  # two signals at once would be one, and nothing shows that the first has been handled
        if program.running:
            os.kill(program.pid, SIGTERM)
    assert program.wait(TIMEOUT_SECONDS) == 0
    return time.monotonic() - started


def spent_attempts(scene: Scene) -> set[tuple[int, int]]:
    """Return all pairs of attempts and returns that messages have needed."""
    return set(scene.connection.execute("SELECT attempt, generation FROM outbox_messages").fetchall())


def stop_a_relay_in_the_middle_of_a_backlog(stage: Stage, times: int) -> None:
    with stage.scene(**UNHURRIED, OUTBOX_BATCH_SIZE="1") as scene:
        ids = scene.sign_up(200)
        relay = scene.start_relay()
        wait_until(lambda: scene.count("status = 'published'") > 5, TIMEOUT_SECONDS, "some messages to be published")
        took = terminate(relay, times)
        left = scene.count("status = 'pending'")
        spent_by_the_relay = spent_attempts(scene)
        scene.start_relay()
        scene.start("worker", "worker", env=OUTBOX_WORKER)
        scene.wait_for_quiet(TIMEOUT_SECONDS)

        assert took < RELAY_STOPS_WITHIN
        assert left > 0
        assert spent_by_the_relay == {(0, 0)}
        assert set(scene.copies(ids).values()) == {1}
        # A mail that takes longer than a second, on a busy machine, makes the server slow: some others are released.
        assert {attempt for attempt, _ in spent_attempts(scene)} == {1}


def stop_an_outbox_worker_with_mails_in_flight(stage: Stage, times: int) -> None:
    with stage.scene(**UNHURRIED) as scene:
        ids = scene.sign_up(300)  # enough for many reads of the slots before the last one is sent
        scene.mailbox.set_fault("slow:0.05")
        scene.start_relay()
        worker = scene.start("worker", "worker", env=OUTBOX_WORKER)
        scene.mailbox.wait_for(10, TIMEOUT_SECONDS)
        wait_until(lambda: scene.count("status = 'running'") == 5, TIMEOUT_SECONDS, "all slots to be busy")
        took = terminate(worker, times)
        left = scene.count()
        running = scene.count("status = 'running'")
        scene.mailbox.set_fault(None)
        scene.start("successor", "worker", env=OUTBOX_WORKER)
        scene.wait_for_quiet(TIMEOUT_SECONDS)

        assert took < 15 * 2 / 3 + GRACE_SECONDS + SLACK
        assert (left > 0, running) == (True, 0)
        assert set(scene.copies(ids).values()) == {1}
        # A mail that takes longer than a second, on a busy machine, makes the server slow: some others are released.
        assert {attempt for attempt, _ in spent_attempts(scene)} == {1}


def stop_an_outbox_worker_before_a_mail_server_that_hangs(stage: Stage, times: int) -> None:
    with stage.scene(**{**UNHURRIED, "OUTBOX_RUN_LEASE_SECONDS": "4.5"}) as scene:
        ids = scene.sign_up(5)
        scene.mailbox.set_fault("data-hang")
        scene.start_relay()
        worker = scene.start("worker", "worker", env=OUTBOX_WORKER)
        wait_until(lambda: scene.count("status = 'running'") == 5, TIMEOUT_SECONDS, "all slots to be busy")
        took = terminate(worker, times)
        scene.mailbox.set_fault(None)
        scene.start("successor", "worker", env=OUTBOX_WORKER)
        scene.wait_for_quiet(TIMEOUT_SECONDS)

        assert took < 4.5 * 2 / 3 + GRACE_SECONDS + SLACK
        assert set(scene.copies(ids).values()) == {1}


def stop_a_stock_worker_with_a_mail_in_flight(stage: Stage, times: int) -> None:
    """RQ ignores a second SIGTERM within a second of the first."""
    with stage.scene(**UNHURRIED) as scene:
        ids = scene.sign_up(4)
        scene.mailbox.set_fault("slow:0.2")
        scene.start_relay()
        worker = scene.start("worker", "worker", env=STOCK_WORKER)
        wait_until(lambda: scene.count("status = 'running'") == 1, TIMEOUT_SECONDS, "a horse to be at work")
        took = terminate(worker, times)
        running = scene.count("status = 'running'")
        scene.mailbox.set_fault(None)
        scene.start("successor", "worker", env=STOCK_WORKER)
        scene.wait_for_quiet(TIMEOUT_SECONDS)

        assert took < 15 * 2 / 3 + SLACK
        assert running == 0
        assert set(scene.copies(ids).values()) == {1}
        assert spent_attempts(scene) == {(1, 0)}


def stop_a_stock_worker_cold(stage: Stage) -> None:
    """A second SIGTERM later than that kills the work horse: the claim's lease ends, and an attempt is spent."""
    with stage.scene(OUTBOX_RUN_LEASE_SECONDS="6") as scene:
        [id_] = scene.sign_up()
        scene.mailbox.set_fault("rcpt-hang")
        scene.start_relay()
        worker = scene.start("worker", "worker", env=STOCK_WORKER)
        wait_until(lambda: scene.count("status = 'running'") == 1, TIMEOUT_SECONDS, "a horse to be at work")
        os.kill(worker.pid, SIGTERM)
        time.sleep(1.5)  # longer than the second in which RQ ignores another signal
        took = terminate(worker, 1)
        running = scene.count("status = 'running'")
        scene.mailbox.set_fault(None)
        scene.start("successor", "worker", env=STOCK_WORKER)
        scene.wait_for_quiet(TIMEOUT_SECONDS)

        assert (took < SLACK, running) == (True, 1)
        assert scene.copies([id_]) == {id_: 1}
        assert spent_attempts(scene) == {(2, 1)}


ONCE_AND_TWICE: Final[dict[str, Callable[[Stage, int], None]]] = {
    "a relay stops in the middle of a backlog": stop_a_relay_in_the_middle_of_a_backlog,
    "an OutboxWorker finishes the mails in flight": stop_an_outbox_worker_with_mails_in_flight,
    "an OutboxWorker does not wait for a mail server that hangs": stop_an_outbox_worker_before_a_mail_server_that_hangs,
    "a stock worker finishes the mail in flight": stop_a_stock_worker_with_a_mail_in_flight,
}


def often(shutdown: Callable[[Stage, int], None], times: int) -> Callable[[Stage], None]:
    return lambda stage: shutdown(stage, times)


SHUTDOWNS: Final[dict[str, Callable[[Stage], None]]] = {
    # What takes the longest begins first.
    "a stock worker's cold shutdown is repaired by the relay": stop_a_stock_worker_cold,
    **{
        f"{name}, {number}": often(shutdown, times)
        for name, shutdown in ONCE_AND_TWICE.items()
        for number, times in (("once", 1), ("twice", 2))
    },
}


@pytest.fixture(scope="module")
def scenes(request: pytest.FixtureRequest, stage: Stage) -> Iterator[dict[str, Future[None]]]:
    with run_in_parallel(request, lambda key: SHUTDOWNS[key](stage), AT_ONCE) as futures:
        yield futures


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.long if key.endswith(", once") else ()) for key in SHUTDOWNS]
)
def test_sigterm_ends_a_process_in_time_and_loses_nothing(key: str, scenes: dict[str, Future[None]]) -> None:
    scenes[key].result()
