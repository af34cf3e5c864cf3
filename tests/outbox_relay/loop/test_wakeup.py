"""How often the relay tries to listen, and how often it reads what it has heard."""

from collections.abc import Iterator

import psycopg
import pytest

from outbox_relay.loop import wakeup as doorbell_module
from outbox_relay.loop.wakeup import Doorbell
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(doorbell_module, "monotonic", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds_a_try", "pauses"), [(3.0, [5, 10, 20, 40, 80, 120, 120]), (0.0, [5, 5, 5, 5, 5, 5, 5])]
)
def test_an_address_that_takes_long_to_fail_is_tried_less_and_less_often(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds_a_try: float, pauses: list[int]
) -> None:
    ended: list[float] = []
    began: list[float] = []

    def fail(_url: str, _name: str) -> psycopg.Connection:
        began.append(clock.now)
        clock.now += seconds_a_try
        ended.append(clock.now)
        raise psycopg.OperationalError

    monkeypatch.setattr(doorbell_module, "connect", fail)
    bell = Doorbell("postgresql://nowhere")
    while len(began) <= len(pauses):
        bell.prepare()
        clock.now += 1

    waited = [next_ - last for last, next_ in zip(ended, began[1:], strict=False)]
    assert waited == pauses


def test_a_relay_that_never_sleeps_reads_once_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []

    class Listening:
        def execute(self, _statement: str) -> None:
            """LISTEN."""

        def notifies(self, *, timeout: float) -> Iterator[object]:
            read.append(timeout)
            return iter(())

    monkeypatch.setattr(doorbell_module, "connect", lambda _url, _name: Listening())
    bell = Doorbell("postgresql://somewhere")
    for _ in range(31):
        bell.prepare()
        clock.now += 0.1

    assert read == [0, 0, 0]
