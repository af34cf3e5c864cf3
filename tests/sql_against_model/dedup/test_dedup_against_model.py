"""The statements about dedup keys do what the model says, and a difference fails the test."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.model.dedup.state import LATER, SOON, WAITING, DedupConfig, DedupStep, DedupWorld, Move
from tests.model.dedup.steps import dedup_steps
from tests.sql_against_model.dedup.dedup_service import DedupService
from tests.sql_against_model.moment import LOCKED, DivergenceError
from tests.sql_against_model.small_walks import SmallRun, walks

THREE = DedupConfig()
TWO = DedupConfig(dues=(SOON, LATER), orders=2)
PATHS = {
    "an-append-meets-a-claim-that-was-released": (
        *("appender 0: append (a row of its own)", "appender 0: commit", "row 0: claim (reads 0)", "row 0: release"),
        *("appender 1: append (a row of its own)", "appender 1: commit", "row 0: claim (reads 0)", "row 0: release"),
        *("row 1: claim (reads 1)", "row 1: done", "row 0: claim (reads 0)", "row 0: done"),
    ),
    "an-append-joins-and-the-claim-reads-it": (
        *("appender 0: append (a row of its own)", "appender 0: commit", "appender 1: append (to row 0)"),
        *(f"row 0: claim ({LOCKED})", "appender 1: commit", "row 0: claim (reads 1)", "row 0: done"),
    ),
    "an-append-joins-and-is-rolled-back": (
        *("appender 0: append (a row of its own)", "appender 0: commit", "appender 1: append (to row 0)"),
        *("appender 1: rollback", "row 0: claim (reads 0)", "row 0: fail (at last)", "row 0: retry", "row 0: discard"),
    ),
    "two-appends-at-once": (
        *("appender 0: append (a row of its own)", "appender 1: append (without the key)"),
        *("appender 1: commit", "appender 0: commit"),
    ),
}
STEPS = {
    *("append", "commit", "rollback", "claim", f"claim: {LOCKED}", "done", "release", "fail"),
    *("discard", "retry"),
}


@pytest.fixture
def service(database_url: str) -> Iterator[DedupService]:
    with closing(DedupService(database_url)) as service:
        yield service


def moves(world: DedupWorld, config: DedupConfig) -> Iterator[Move]:
    """What may come next, and the claim that has to wait."""
    yield from dedup_steps(world, config)
    for number, row in enumerate(world.rows):
        if world.worker.row < 0 and world.locked(number) and (row.status, row.due) == (WAITING, SOON):
            yield DedupStep("claim", f"row {number}", LOCKED), world


@pytest.mark.parametrize("examples", [12, pytest.param(60, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_of_dedup_keys_says(service: DedupService, examples: int) -> None:
    walks([THREE, TWO], moves, examples=examples)(service=service)
    for path in PATHS.values():
        SmallRun(service, TWO, moves).follow(path)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


def test_path_finds_a_missing_guard(service: DedupService) -> None:
    """A key that is not freed by the claim."""
    service.own.execute(
        "DROP INDEX outbox_dedup_idx; CREATE UNIQUE INDEX outbox_dedup_idx ON outbox (task, dedup_key)"
        " WHERE dedup_key IS NOT NULL"
    )

    with pytest.raises(DivergenceError) as noticed:
        SmallRun(service, TWO, moves).follow(PATHS["an-append-meets-a-claim-that-was-released"])

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
