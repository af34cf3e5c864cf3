"""The statements of `Done()` do what the model says, and a difference fails the test."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.database.connections import MARKER
from shared.outbox.claiming import claims
from tests.model.handlers.done_state import COMMITS, EFFECT, MAIL, REFUSED, DoneConfig
from tests.model.handlers.done_steps import done_steps
from tests.sql_against_model.handlers.done_service import DoneService
from tests.sql_against_model.moment import DivergenceError
from tests.sql_against_model.small_walks import SmallRun, walks
from tests.sql_against_model.unguarded import leave_out

ONE = DoneConfig(kinds=(EFFECT,), max_retries=1, faults=2)
WITH_MAIL = DoneConfig(kinds=(EFFECT, MAIL), max_retries=1)
COMMITTING = DoneConfig(kinds=(COMMITS,), max_retries=1)
CONFIGS = [
    ONE,
    DoneConfig(max_retries=1, faults=2),
    WITH_MAIL,
    COMMITTING,
    DoneConfig(kinds=(REFUSED,), max_retries=1),
]
FROZEN = (
    *("worker 0: claim (m0)", "worker 0: prepare (m0)", "worker 0: stand_still (past its lease)", "m0: reap_running"),
    *("worker 1: claim (m0)", "worker 1: prepare (m0)"),
)
PATHS = {
    "a-frozen-worker-wakes-after-another-has-finished": (
        *(*FROZEN, "worker 1: ack (m0)", "worker 1: commit"),
        *("worker 0: ack (only : rollback)", "worker 0: ask (still ours: none)"),
    ),
    "a-frozen-worker-wakes-while-another-is-at-work": (
        *(*FROZEN, "worker 0: ack (only : rollback)", "worker 0: ask (still ours: none)"),
        *("worker 1: ack (m0)", "worker 1: commit"),
    ),
    "an-answer-is-lost-and-the-commit-lands": (
        *(
            "worker 0: claim (m0)",
            "worker 0: prepare (m0)",
            "worker 0: ack (m0)",
            "worker 0: commit (its answer is lost)",
        ),
        *("postgres: commit_lands", "worker 0: ask (still ours: none)"),
    ),
    "an-answer-is-lost-and-the-commit-fails": (
        *(
            "worker 0: claim (m0)",
            "worker 0: prepare (m0)",
            "worker 0: ack (m0)",
            "worker 0: commit (its answer is lost)",
        ),
        *("postgres: commit_fails", "worker 0: ask (still ours: m0)"),
        *("worker 0: prepare (m0)", "worker 0: ack (m0)", "worker 0: commit"),
    ),
}
BESIDE_A_MAIL = (
    *("worker 0: claim (m0, m1)", "worker 0: prepare (m0, m1)", "worker 0: ack (m0)"),
    *("worker 0: commit", "worker 0: send (m1)"),
)
STEPS = {
    *("claim", "prepare", "ack", "commit", "ask", "send", "fail", "crash", "stand_still"),
    *("reap_running", "commit_lands", "commit_fails"),
}
ITS_TASK_COMMITS = (
    "worker 0: claim (m0)",
    "worker 0: prepare (m0)",
    "worker 0: ack (0 rows: no marker)",
    "worker 0: fail (m0)",
)


@pytest.fixture
def service(database_url: str) -> Iterator[DoneService]:
    with closing(DoneService(database_url)) as service:
        yield service


@pytest.mark.parametrize("examples", [12, pytest.param(60, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_of_done_says(service: DoneService, examples: int) -> None:
    walks(CONFIGS, done_steps, examples=examples)(service=service)
    for path in PATHS.values():
        SmallRun(service, ONE, done_steps).follow(path)
    SmallRun(service, COMMITTING, done_steps).follow(ITS_TASK_COMMITS)
    SmallRun(service, WITH_MAIL, done_steps).follow(BESIDE_A_MAIL)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


@pytest.mark.parametrize(
    ("clause", "instead", "config", "path"),
    [
        (
            "claim_token = claim.token",
            "claim.token IS NOT NULL",
            ONE,
            PATHS["a-frozen-worker-wakes-while-another-is-at-work"],
        ),
        (f"AND {MARKER} = %s", "AND %s::text IS NOT NULL", COMMITTING, ITS_TASK_COMMITS),
    ],
    ids=["token", "marker"],
)
def test_path_finds_a_missing_guard(
    service: DoneService,
    monkeypatch: pytest.MonkeyPatch,
    clause: str,
    instead: str,
    config: DoneConfig,
    path: tuple[str, ...],
) -> None:
    leave_out(monkeypatch, claims.ack_in, clause, instead)

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        SmallRun(service, config, done_steps).follow(path)

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
