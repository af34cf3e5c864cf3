"""The pipe that ends a relay's sleep."""

import time
from contextlib import closing

from outbox_relay.loop.wakeup_pipe import WakeupPipe


def test_a_wake_ends_one_sleep() -> None:
    with closing(WakeupPipe()) as wakeup:
        wakeup.wake()
        before = time.monotonic()
        wakeup.sleep(30)
        assert time.monotonic() - before < 10
        wakeup.wake()
        wakeup.drain()
        wakeup.sleep(0)
