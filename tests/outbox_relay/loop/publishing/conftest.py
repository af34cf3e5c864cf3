"""A publisher, and the broker that it pushes to."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker, open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from tests.outbox_relay.loop.publishing.publishers import publisher_to


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as open_broker_:
        yield open_broker_


@pytest.fixture
def publisher(broker: Broker) -> Publisher:
    return publisher_to(broker)
