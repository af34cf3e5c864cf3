"""Compare the time that monitoring takes with a huge backlog and with a small one."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from outbox_relay.__main__ import main
from outbox_relay.metrics.relay_metrics import RelayMetrics
from shared.database.connections import connect
from tests.programs.api_service import api_service

SMALL: Final = 1000
TIMES_AS_LONG: Final = 5.0
_ROUNDS: Final = 9
_APPENDED_AT_ONCE: Final = 500_000
_TOKEN: Final = "the token of this proof: 32 and more characters"  # noqa: S105 - the proof's own


@dataclass(frozen=True)
class Beside:
    """How long each view took beside a small and beside a huge backlog, in milliseconds."""

    messages: int
    milliseconds: dict[str, tuple[float, float]]

    @property
    def holds(self) -> bool:
        """Return whether none takes more than TIMES_AS_LONG."""
        return all(huge <= TIMES_AS_LONG * small for small, huge in self.milliseconds.values())

    def __str__(self) -> str:
        """Write the figures in one line."""
        views = ", ".join(f"{name} {small:.0f} → {huge:.0f} ms" for name, (small, huge) in self.milliseconds.items())
        return f"{SMALL} → {self.messages} pending messages: {views}"


def beside(database_url: str, messages: int) -> Beside:
    """Measure every view, then append the backlog and measure again, with the statistics of the small one."""
    with api_service(database_url, ops_token=_TOKEN) as service, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", database_url)
        client = service.client()
        client.post("/ops/login", data={"token": _TOKEN})
        relay = RelayMetrics(database_url)
        views: dict[str, Callable[[], bool]] = {
            "the API's /metrics": lambda: "outbox_relays_alive 0.0" in client.get("/metrics").text,
            "a relay's /metrics": lambda: b"outbox_relays_alive 0.0" in generate_latest(relay.registry),
            "stats": lambda: CliRunner().invoke(main, ["stats"]).exit_code == 0,
            "/ops": lambda: client.get("/ops").status_code == 200,
            "/readyz": lambda: client.get("/readyz").status_code == 200,
        }
        _append(database_url, SMALL)
        with connect(database_url, "proof") as connection:
            connection.execute("ANALYZE outbox")
        small = {name: _milliseconds(view) for name, view in views.items()}
        _append(database_url, messages - SMALL)
        huge = {name: _milliseconds(view) for name, view in views.items()}
        return Beside(messages, {name: (small[name], huge[name]) for name in views})


def _milliseconds(view: Callable[[], bool]) -> float:
    """Return the median of some looks."""
    took: list[float] = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        assert view()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1000


def _append(database_url: str, messages: int) -> None:
    with connect(database_url, "proof") as connection:
        for start in range(0, messages, _APPENDED_AT_ONCE):
            connection.execute(
                "INSERT INTO outbox (task, payload, queue) SELECT 't', '{}', 'default' FROM generate_series(1, %s)",
                [min(_APPENDED_AT_ONCE, messages - start)],
            )
