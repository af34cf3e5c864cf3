"""The supervisor starts programs and servers again when they end."""

from dataclasses import dataclass, field

import pytest

from embedded.errors import EmbeddedError
from embedded.supervision import Supervisor


@dataclass
class FakePiece:
    """Runs, or does not; may refuse to start."""

    name: str = "relay"
    running: bool = True
    exit_code: int | None = None
    refuses: int = 0
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        if self.starts <= self.refuses:
            raise EmbeddedError("the port is taken")
        self.running = True

    def end(self, exit_code: int) -> None:
        self.running, self.exit_code = False, exit_code


@dataclass
class Clock:
    """A clock that moves only when a test moves it."""

    now: float = 1000.0
    said: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def supervise(clock: Clock, *pieces: FakePiece) -> Supervisor:
    return Supervisor(pieces, clock.said.append, clock.monotonic)


def pass_time(clock: Clock, supervisor: Supervisor, seconds: float) -> None:
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.25
        supervisor.run_once()


def test_what_runs_is_left_alone(clock: Clock) -> None:
    piece = FakePiece()
    pass_time(clock, supervise(clock, piece), 100)

    assert piece.starts == 0
    assert clock.said == []


def test_what_ended_is_started_again_and_reported(clock: Clock) -> None:
    piece = FakePiece()
    supervisor = supervise(clock, piece)

    piece.end(-9)
    pass_time(clock, supervisor, 1)

    assert piece.running
    assert clock.said == ["relay ended (signal 9); it is restarted in 0.5 s", "relay runs again"]


def test_the_pause_grows_up_to_a_limit_while_it_keeps_ending(clock: Clock) -> None:
    piece = FakePiece(refuses=8)
    supervisor = supervise(clock, piece)

    piece.end(1)
    pass_time(clock, supervisor, 200)

    pauses = [line.rpartition(" in ")[2] for line in clock.said[:-1]]
    assert pauses == ["0.5 s", "1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s", "30 s"]
    assert "could not be started: the port is taken" in clock.said[1]


def test_the_pause_is_short_again_after_a_healthy_life(clock: Clock) -> None:
    piece = FakePiece()
    supervisor = supervise(clock, piece)
    for _ in range(3):
        piece.end(0)
        pass_time(clock, supervisor, 5)
    pass_time(clock, supervisor, 60)
    clock.said.clear()

    piece.end(0)
    pass_time(clock, supervisor, 1)

    assert clock.said[0] == "relay ended (exit code 0); it is restarted in 0.5 s"


def test_one_that_waits_does_not_hold_up_another(clock: Clock) -> None:
    first, second = FakePiece(refuses=100), FakePiece(name="worker")
    supervisor = supervise(clock, first, second)
    first.end(1)
    pass_time(clock, supervisor, 20)

    second.end(1)
    pass_time(clock, supervisor, 1)

    assert second.running
    assert not first.running
