"""Our relay: each batch is one pass of its loop, reaper included."""

from rq.defaults import RQ_KEY_PREFIX

from bench.relays.batches import BATCH, MoveBatch, Task
from outbox_relay.broker import open_broker
from outbox_relay.loop.observer import Observer
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.logs import configure_logging
from shared.settings.relay import RelaySettings


def prepare(task: Task) -> MoveBatch:
    """Build the relay and connect."""
    relay = build(task)
    relay.connect()
    return lambda: relay.run_once().published


def build(task: Task, *, keep_done_days: float = 7, observer: Observer | None = None) -> Relay:
    """Build the relay as `python -m outbox_relay` does with the default settings."""
    configure_logging()
    settings = RelaySettings(
        database_url=task.database_url,
        listen_url=task.database_url,
        redis_url=task.redis_url,
        key_prefix=RQ_KEY_PREFIX,
        publish_lease_seconds=30,
        run_lease_seconds=60,
        batch_size=BATCH,
        poll_seconds=1,
        keep_done_days=keep_done_days,
    )
    broker = open_broker(settings.redis_url, settings.key_prefix, settings.run_lease_seconds)
    broker.epoch()  # connects
    return Relay(settings, broker, WakeupPipe(), observer)
