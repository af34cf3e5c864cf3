"""A publisher to any Redis."""

from outbox_relay.broker import Broker
from outbox_relay.loop.publishing.publisher import RESCAN_SECONDS, Publisher

LEASE = 30.0


def publisher_to(broker: Broker, rescan_seconds: float = RESCAN_SECONDS, sources_searched: int = 100) -> Publisher:
    """Return a publisher that searches in each pass, however busy the machine is."""
    return Publisher(
        broker,
        publish_lease_seconds=LEASE,
        probe_timeout_seconds=60,
        rescan_seconds=rescan_seconds,
        quick_search_seconds=60,
        sources_searched=sources_searched,
    )
