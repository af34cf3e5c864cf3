"""A relay that a test runs in its own process, and its settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import open_broker
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup import Alarm
from shared.settings.processes import RelaySettings


def relay_settings(database_url: str, redis_url: str, **others: Any) -> RelaySettings:
    """Give the defaults of a relay on these servers, with some of them changed."""
    defaults = RelaySettings(
        database_url=database_url,
        listen_url=database_url,
        redis_url=redis_url,
        key_prefix=RQ_KEY_PREFIX,
        publish_lease_seconds=30,
        run_lease_seconds=60,
        batch_size=1000,
        poll_seconds=1.0,
        keep_done_days=7,
    )
    return replace(defaults, **others)


@contextmanager
def open_relay(settings: RelaySettings) -> Iterator[Relay]:
    """A relay in this process, which does one thing after the other as it is told."""
    alarm = Alarm()
    broker = open_broker(settings.redis_url, settings.key_prefix, settings.run_lease_seconds)
    relay = Relay(settings, broker, alarm)
    try:
        yield relay
    finally:
        relay.close()
        alarm.close()
