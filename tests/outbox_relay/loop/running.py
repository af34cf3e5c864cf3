"""A relay's loop in a thread of the test."""

import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from outbox_relay.broker import ASK_SENTINELS_SECONDS, open_broker
from outbox_relay.loop.pacing import Pacing
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from shared.doubling_pause import DoublingPause
from shared.outbox.messages import NOTIFY_CHANNEL
from shared.settings.relay import RelaySettings
from tests.rows import add_message, message
from tests.settings.relay import relay_settings

LONG_POLL = 600.0
Logs = list[MutableMapping[str, Any]]


def settings(database_url: str, redis_url: str, *, poll_seconds: float = 0.1) -> RelaySettings:
    return relay_settings(database_url, redis_url, batch_size=100, poll_seconds=poll_seconds)


OUTAGES = ("redis.unavailable", "postgresql.unavailable")


@dataclass
class RunningRelay:
    relay: Relay
    thread: threading.Thread
    logs: Logs

    def events(self, name: str) -> Logs:
        return [line for line in self.logs if line["event"] == name]

    def outages(self) -> Logs:
        return [line for line in self.logs if line["event"] in OUTAGES]


@contextmanager
def running(
    chosen: RelaySettings,
    *,
    pacing: Pacing | None = None,
    gathering: DoublingPause | None = None,
    ask_sentinels_seconds: float = ASK_SENTINELS_SECONDS,
) -> Iterator[RunningRelay]:
    """Run a relay in a thread; at the end it must stop within seconds."""
    wakeup = WakeupPipe()
    broker = open_broker(
        chosen.redis_url,
        chosen.key_prefix,
        chosen.run_lease_seconds,
        ask_sentinels_seconds=ask_sentinels_seconds,
    )
    relay = Relay(chosen, broker, wakeup, pacing=pacing, gathering=gathering)
    thread = threading.Thread(target=relay.run)
    with structlog.testing.capture_logs() as logs:
        thread.start()
        try:
            yield RunningRelay(relay, thread, logs)
        finally:
            relay.stop()
            thread.join(10)
            relay.close()
            wakeup.close()
    assert not thread.is_alive()


def is_published(database_url: str, id_: int) -> Callable[[], bool]:
    def look() -> bool:
        with connect(database_url, "test") as connection:
            return bool(message(connection, id_)["status"] == "published")

    return look


def listens(database_url: str) -> bool:
    with connect(database_url, "test") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone()
    return row == (1,)


def add(database_url: str, **columns: Any) -> int:
    with connect(database_url, "test") as connection:
        return add_message(connection, **columns)


def notify(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute("SELECT pg_notify(%s, '')", [NOTIFY_CHANNEL])


class RecordedPause(DoublingPause):
    """A gathering pause that records what the relay asks of it."""

    def __init__(self) -> None:
        super().__init__(0.002, 0.064)
        self.calls: list[str] = []

    def next(self) -> float:
        self.calls.append("gather")
        return super().next()

    def reset(self) -> None:
        self.calls.append("nothing is due")
        super().reset()
