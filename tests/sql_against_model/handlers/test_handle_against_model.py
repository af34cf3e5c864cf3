"""What is written about handlers is what the model says, and a difference fails the test."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.outbox.claiming import renewals
from tests.model.handlers.handle_state import (
    APPENDS_WHAT_IS_REFUSED,
    ENDS,
    NEVER_ENDS,
    RUNNING,
    WORKING,
    HandleConfig,
    HandleStep,
    HandleWorld,
    Move,
)
from tests.model.handlers.handle_steps import handle_steps
from tests.sql_against_model.handlers.handle_service import HandleService
from tests.sql_against_model.moment import DivergenceError
from tests.sql_against_model.small_walks import SmallRun, walks
from tests.sql_against_model.unguarded import leave_out

ONE = HandleConfig(faults=2, max_retries=2)
NEVER = HandleConfig(kinds=(NEVER_ENDS, ENDS), workers=(2,), max_retries=2)
REFUSED = HandleConfig(kinds=(APPENDS_WHAT_IS_REFUSED,))
ENDED = HandleConfig(shutdowns=1)
BEGUN = ("place 0: claim (m0)", "place 0: begin")
LATE = (*BEGUN, "place 0: overtime", "place 0: fail", "worker 0: exit")
FROZEN = (*BEGUN, "worker 0: stand_still (past its leases)", "m0: lease_ends")
PATHS = {
    "an-answer-is-lost": (
        ONE,
        (*BEGUN, "place 0: returns", "place 0: ack (not answered, committed)", "place 0: ack (0 rows: done before)"),
    ),
    "a-frozen-worker-renews-in-time": (
        ONE,
        (*FROZEN, "place 0: renew", "place 0: returns", "place 0: ack"),
    ),
    "a-frozen-worker-renews-too-late": (
        ONE,
        (
            *FROZEN,
            "m0: reap_running",
            "place 1: claim (m0)",
            "place 0: renew_nothing",
            "place 0: returns",
            "place 0: ack (0 rows)",
            "place 1: begin",
            "place 1: returns",
            "place 1: ack",
        ),
    ),
    "a-frozen-worker-begins-nothing": (
        ONE,
        (
            "place 0: claim (m0)",
            "worker 0: stand_still (past its leases)",
            "place 0: begin (too late)",
            "place 0: release",
        ),
    ),
    "a-late-handler-returns": (
        ONE,
        (*BEGUN, "place 0: overtime", "place 0: fail", "place 0: ends_late", "place 0: claim (m0)"),
    ),
    "a-handler-is-late-twice": (NEVER, (*LATE, *LATE[:-1])),
    "what-it-appends-is-refused": (REFUSED, (*BEGUN, "place 0: returns", "place 0: ack (refused)", "place 0: fail")),
    "a-worker-is-ended": (ENDED, (*BEGUN, "worker 0: shutdown", "place 1: claim (m0)", "worker 1: crash")),
}
STEPS = {
    *("claim", "begin", "returns", "raises", "renew", "renew_nothing", "overtime", "ack", "fail", "release", "exit"),
    *("ends_late", "crash", "stand_still", "shutdown", "lease_ends", "reap_running"),
}


@pytest.fixture
def service(database_url: str) -> Iterator[HandleService]:
    with closing(HandleService(database_url)) as service:
        yield service


def moves(world: HandleWorld, config: HandleConfig) -> Iterator[Move]:
    """What may come next, and the renewals that come too late."""
    yield from handle_steps(world, config)
    for number, place in enumerate(world.places):
        if place.phase == WORKING:
            task = world.tasks[place.message]
            if task.status != RUNNING or task.token != number:
                yield HandleStep("renew_nothing", f"place {number}"), world


@pytest.mark.parametrize("examples", [12, pytest.param(60, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_of_handlers_says(service: HandleService, examples: int) -> None:
    walks([ONE, NEVER, REFUSED, ENDED], moves, examples=examples)(service=service)
    for config, path in PATHS.values():
        SmallRun(service, config, moves).follow(path)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


def test_path_finds_a_missing_guard(service: HandleService, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out(monkeypatch, renewals.renew_claims, "claim_token = claim.token", "claim.token IS NOT NULL")
    config, path = PATHS["a-frozen-worker-renews-too-late"]

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        SmallRun(service, config, moves).follow(path)

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
