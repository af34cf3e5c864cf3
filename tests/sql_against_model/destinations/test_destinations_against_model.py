"""The statements about destinations do what the model says, and a difference fails the test."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from consumer.stages.recording import outcome_writer
from shared.outbox import publishing
from shared.outbox.claiming import claims
from shared.outbox.claiming.known_tasks import DESTINATION
from tests.model.destinations.relay import is_blocked
from tests.model.destinations.state import (
    DOWN,
    MOST_UNAVAILABLE,
    NOWHERE,
    PENDING,
    RUNNING,
    A,
    B,
    Destination,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
    Move,
    name_of,
)
from tests.model.destinations.steps import destination_steps
from tests.sql_against_model.destinations.destinations_service import DestinationsService
from tests.sql_against_model.moment import DivergenceError
from tests.sql_against_model.small_walks import SmallRun, walks
from tests.sql_against_model.unguarded import leave_out

PAUSE = DestinationsConfig(tasks=(A, A, B), orders=2, faults=1, max_retries=1)
OUTAGE = DestinationsConfig(
    tasks=(A, A), destinations=(Destination(DOWN), Destination()), switches=2, faults=1, not_contacted=True
)
OTHER_ROWS = DestinationsConfig(
    tasks=(A, A), rows=(NOWHERE, B), destinations=(Destination(DOWN), Destination(DOWN)), switches=1, orders=2
)
LOCKS = DestinationsConfig(destinations=(Destination(DOWN), Destination()), switches=1, orders=2, locks=True)
UNKNOWN = DestinationsConfig(tasks=(A, A), rows=(NOWHERE, A), knowing=(False, True), orders=1)
POISON = DestinationsConfig(tasks=(A, A), poisoned=frozenset({0}))
CONFIGS = [PAUSE, OUTAGE, OTHER_ROWS, LOCKS, UNKNOWN, POISON]

SENT = ("begin m0", "send m0 (unavailable)", "record m0 (unavailable)", "becomes_due m0")
OPENED = ("publish m0", "claim m0 (for A)", "read m0 (A: available)", *SENT)
PROBED = ("probe_falls_due A", "publish m0 (as the probe of A)", "claim m0 (for A)", "read m0 (A: available)")
PATHS = {
    "a-probe-closes-the-breaker": (
        OUTAGE,
        (
            *OPENED,
            "publish_nothing -",
            *PROBED,
            *SENT,
            "change A (up)",
            *PROBED,
            "begin m0",
            "send m0 (answered)",
            "record m0 (answered)",
            "publish m1",
        ),
    ),
    "a-probe-is-silent": (
        OUTAGE,
        (*OPENED, *PROBED, "crash m0", "reap_running m0", "probe_falls_due A", "publish m1 (as the probe of A)"),
    ),
    "a-probe-is-done-without-its-destination": (
        OUTAGE,
        (*OPENED, *PROBED, "begin m0", "send m0 (not contacted)", "record m0 (not contacted)", "publish_nothing -"),
    ),
    "paused-destinations-wait": (PAUSE, ("pause A", "pause B", "publish_nothing -", "resume B", "publish m2")),
    "a-paused-destination-is-not-probed": (
        OTHER_ROWS,
        (
            "publish m0",
            "claim m0 (for A)",
            "read m0 (A: available)",
            "begin m0",
            "pause A",
            "wait_goes_on A",
            "send m0 (unavailable)",
            "record m0 (unavailable)",
            "wait_returns A",
            "probe_falls_due A",
            "becomes_due m0",
            "publish m1",
            "claim m1 (for A)",
            "read m1 (A: blocked)",
            "record m1 (blocked)",
            "becomes_due m1",
            "publish_nothing -",
            "resume A",
            "publish m0 (as the probe of A)",
        ),
    ),
    "a-probe-turns-out-to-be-anothers": (
        OTHER_ROWS._replace(rows=(B, B), tasks=(A, B)),
        (
            "publish m1",
            "claim m1 (for B)",
            "read m1 (B: available)",
            "begin m1",
            "send m1 (unavailable)",
            "record m1 (unavailable)",
            "becomes_due m1",
            "probe_falls_due B",
            "publish m0 (as the probe of B)",
            "claim m0 (for A)",
            "read m0 (A: available)",
            "begin m0",
            "send m0 (unavailable)",
            "record m0 (unavailable)",
            "publish m1 (as the probe of B)",
        ),
    ),
    "an-outage-that-cannot-be-written": (
        LOCKS,
        (
            "publish m0",
            "claim m0 (for A)",
            "lock A",
            "read m0 (A: available)",
            *SENT,
            "publish m0",
            "claim m0 (for A)",
            "unlock A",
            "read m0 (A: available)",
            *SENT,
        ),
    ),
    "a-task-that-only-one-worker-knows": (
        UNKNOWN,
        (
            "publish m0",
            "claim m0 (unknown task)",
            "read m0 (nowhere: available)",
            "record m0 (unknown task)",
            "hour_passes m0",
            "becomes_due m0",
            "publish m0",
            "claim m0 (for A)",
            "pause A",
            "read m0 (A: blocked)",
            "record m0 (blocked)",
            "resume A",
            "becomes_due m0",
            "publish m0",
            "claim m0 (unknown task)",
            "read m0 (A: available)",
            "record m0 (unknown task)",
            "hour_passes m0",
            "becomes_due m0",
            "publish m0",
            "claim m0 (unknown task)",
            "read m0 (A: available)",
            "record m0 (unknown task)",
        ),
    ),
}
STEPS = {
    *("publish", "publish_nothing", "reap_running", "claim", "read", "begin", "send", "record"),
    *("pause", "resume", "wait_returns", "wait_goes_on", "lock", "unlock"),
    *("change", "crash", "stand_still", "becomes_due", "probe_falls_due", "hour_passes"),
}


@pytest.fixture
def service(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DestinationsService]:
    monkeypatch.setattr(outcome_writer, "UNAVAILABLE_AT_MOST", MOST_UNAVAILABLE)
    with closing(DestinationsService(database_url)) as service:
        yield service


def moves(world: DestinationsWorld, config: DestinationsConfig) -> Iterator[Move]:
    """What may come next, and what changes nothing: a batch without a message, a pause that waits."""
    has_published = False
    for step, after in destination_steps(world, config):
        has_published = has_published or step.name == "publish"
        yield step, after
    if not has_published and any(
        row.status == PENDING and is_blocked(world, config, row.destination) for row in world.messages
    ):
        yield DestinationStep("publish_nothing", "-"), world
    for number, destination in enumerate(world.destinations):
        in_hand = any(row.status == RUNNING and row.destination == number for row in world.messages)
        if destination.paused and in_hand:
            yield DestinationStep("wait_goes_on", name_of(number)), world


@pytest.mark.parametrize("examples", [15, pytest.param(80, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_of_destinations_says(service: DestinationsService, examples: int) -> None:
    walks(CONFIGS, moves, examples=examples)(service=service)
    for config, path in PATHS.values():
        SmallRun(service, config, moves).follow(path)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


@pytest.mark.parametrize(
    ("statement", "clause", "instead", "path"),
    [
        (publishing.take_batch, " AND d.paused_at IS NULL", "", "paused-destinations-wait"),
        (publishing.take_batch, "d.opened_at IS NULL AND ", "", "a-probe-is-done-without-its-destination"),
        (publishing.take_probe, "AND paused_at IS NULL", "", "a-paused-destination-is-not-probed"),
        (publishing.take_probe, "AND probe_at <= clock_timestamp()", "", "a-probe-is-done-without-its-destination"),
        (claims.claim, DESTINATION, "coalesce(destination, 'unknown')", "a-probe-turns-out-to-be-anothers"),
    ],
    ids=["take_batch-paused", "take_batch-open", "take_probe-paused", "take_probe-time", "claim-destination"],
)
def test_path_finds_a_missing_guard(
    service: DestinationsService,
    monkeypatch: pytest.MonkeyPatch,
    statement: Callable[..., Any],
    clause: str,
    instead: str,
    path: str,
) -> None:
    leave_out(monkeypatch, statement, clause, instead)

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        SmallRun(service, PATHS[path][0], moves).follow(PATHS[path][1])

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
