"""How often the relay tries to listen, and how often it reads notifications."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outbox_relay.loop.listener import Listener
from tests.clock import Clock


@pytest.mark.parametrize(
    ("seconds_per_try", "pauses"), [(3.0, [5, 10, 20, 40, 80, 120, 120]), (0.0, [5, 5, 5, 5, 5, 5, 5])]
)
def test_an_address_that_takes_long_to_fail_is_tried_less_and_less_often(
    seconds_per_try: float, pauses: list[int]
) -> None:
    clock = Clock()
    ended: list[float] = []
    began: list[float] = []

    def fail(_url: str, _name: str) -> Any:
        began.append(clock.now)
        clock.now += seconds_per_try
        ended.append(clock.now)
        raise psycopg.OperationalError

    listener = Listener("postgresql://nowhere", connect=fail, clock=clock)
    while len(began) <= len(pauses):
        listener.prepare()
        clock.now += 1

    waited = [next_ - last for last, next_ in zip(ended, began[1:], strict=False)]
    assert waited == pauses


def test_a_relay_that_never_sleeps_reads_once_a_second() -> None:
    clock = Clock()
    read: list[float] = []

    class Listening:
        def execute(self, _statement: str) -> None:
            """LISTEN."""

        def notifies(self, *, timeout: float) -> Iterator[object]:
            read.append(timeout)
            return iter(())

    def connect(_url: str, _name: str) -> Any:
        return Listening()

    listener = Listener("postgresql://somewhere", connect=connect, clock=clock)
    for _ in range(31):
        listener.prepare()
        clock.now += 0.1

    assert read == [0, 0, 0]
