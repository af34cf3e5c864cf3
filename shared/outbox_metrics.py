"""The outbox's state as metrics, the same at the API and at every relay: all read it from PostgreSQL."""

import math
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.figures import LiveState, Surroundings

State = tuple[list[LiveState], Surroundings]


class OutboxCollector(Collector):
    """Looks at the outbox once for each scrape."""

    def __init__(self, read: Callable[[], State | None]) -> None:
        """Keep how to look: `read` gives None when PostgreSQL cannot be used."""
        self._read = read

    def describe(self) -> list[Metric]:
        """Name nothing in advance: registering shall not look at PostgreSQL."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the present state; when PostgreSQL is away, that alone."""
        state = self._read()
        yield GaugeMetricFamily(
            "outbox_postgresql_up", "Whether PostgreSQL answered this scrape", value=float(state is not None)
        )
        if state is not None:
            live, around = state
            yield from _live(live)
            yield from _around(around)


def _live(live: list[LiveState]) -> Iterator[Metric]:
    labels = ["state", "queue"]
    messages = GaugeMetricFamily("outbox_messages", "Unfinished messages, counted exactly", labels=labels)
    oldest = GaugeMetricFamily(
        "outbox_oldest_seconds",
        "How long the oldest message has been in this state; pending counts from the moment it was due",
        labels=labels,
    )
    for each in live:
        messages.add_metric([each.state, each.queue], each.messages)
        oldest.add_metric([each.state, each.queue], each.oldest_seconds)
    yield messages
    yield oldest


def _around(around: Surroundings) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "outbox_finished_messages_estimate",
        "Messages that are history, as PostgreSQL's statistics estimate it",
        value=around.finished_estimate,
    )
    yield GaugeMetricFamily("outbox_relays_alive", "Relays that made a pass that worked lately", value=around.relays)
    yield GaugeMetricFamily(
        "outbox_relay_seen_seconds",
        "How long ago a relay last showed that a pass worked; infinite when none ever did",
        value=math.inf if around.relay_seen_seconds is None else around.relay_seen_seconds,
    )
    yield GaugeMetricFamily(
        "outbox_mail_server_away_seconds",
        "How long the mail server has been known to be away; 0 when it is not",
        value=around.mail_away_seconds or 0.0,
    )
