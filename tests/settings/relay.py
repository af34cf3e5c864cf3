"""A relay that a test runs in its own process, and its settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import open_broker
from outbox_relay.loop.pacing import Pacing
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.settings.relay import RelaySettings


def relay_settings(database_url: str, redis_url: str, **others: Any) -> RelaySettings:
    """Return the default settings of a relay on these servers, with some of them changed."""
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
def open_relay(settings: RelaySettings, pacing: Pacing | None = None) -> Iterator[Relay]:
    """Open a relay in this process, for a test that runs its passes."""
    wakeup = WakeupPipe()
    broker = open_broker(settings.redis_url, settings.key_prefix, settings.run_lease_seconds)
    relay = Relay(settings, broker, wakeup, pacing=pacing)
    try:
        yield relay
    finally:
        relay.close()
        wakeup.close()
