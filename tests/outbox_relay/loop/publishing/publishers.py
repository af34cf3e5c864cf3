"""A publisher to any Redis."""

from outbox_relay.broker import Broker
from outbox_relay.loop.publisher import Publisher

LEASE = 30.0


def publisher_to(broker: Broker) -> Publisher:
    return Publisher(broker, publish_lease_seconds=LEASE, probe_patience_seconds=60)
