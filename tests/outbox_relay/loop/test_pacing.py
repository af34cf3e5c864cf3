"""A relay rests ever longer while messages keep coming, and no longer than a signal takes to arrive."""

import time
from collections.abc import Iterator

import pytest

from outbox_relay.loop.rest import Rest
from outbox_relay.loop.wakeup import Alarm


class RecordingAlarm(Alarm):
    """Never sleeps; remembers how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)


@pytest.fixture
def alarm() -> Iterator[RecordingAlarm]:
    recording = RecordingAlarm()
    yield recording
    recording.close()


def test_rests_grow_while_messages_keep_coming_up_to_a_bound(alarm: RecordingAlarm) -> None:
    rest = Rest()
    for _ in range(8):
        rest.take(alarm)
    assert alarm.asked == [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.064, 0.064]


def test_the_first_rest_after_a_sleep_is_the_shortest(alarm: RecordingAlarm) -> None:
    rest = Rest()
    rest.take(alarm)
    rest.take(alarm)
    rest.end()
    rest.take(alarm)
    assert alarm.asked == [0.002, 0.004, 0.002]


def test_a_signal_ends_a_sleep_and_is_not_heard_twice() -> None:
    alarm = Alarm()
    try:
        alarm.ring()
        before = time.monotonic()
        alarm.sleep(30)
        assert time.monotonic() - before < 10
        alarm.ring()
        alarm.silence()
        alarm.sleep(0)
    finally:
        alarm.close()
