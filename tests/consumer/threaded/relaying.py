"""A relay beside the workers."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import open_broker
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from tests.consumer.threaded.service import Service
from tests.settings.relay import relay_settings


@contextmanager
def running_relay(service: Service) -> Iterator[None]:
    settings = relay_settings(service.settings["DATABASE_URL"], service.redis_url)
    with closing(WakeupPipe()) as wakeup:
        relay = Relay(settings, open_broker(service.redis_url, RQ_KEY_PREFIX, 60), wakeup)
        thread = threading.Thread(target=relay.run)
        thread.start()
        try:
            yield
        finally:
            relay.stop()
            thread.join()
            relay.close()
