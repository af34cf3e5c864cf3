"""The state of the outbox as Prometheus metrics, the same at the API and at every relay."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.outbox.operations.destination_stats import DestinationStats
from shared.outbox.operations.mail_stats import MailStats
from shared.outbox.operations.stats import DependencyStatus, LiveState

Unreadable = Literal["timeout", "schema", "grant"]
"""A statement took too long, a table or column is missing, or the role may not read one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one scrape has read.

    Attributes:
        is_up: whether PostgreSQL answered; None if it was not asked.
        unreadable: why the outbox could not be read although PostgreSQL answered.
        live, destinations, dependencies, mails: the state of the outbox; None if it was not read completely.

    """

    is_up: bool | None
    unreadable: Unreadable | None = None
    live: list[LiveState] | None = None
    destinations: list[DestinationStats] | None = None
    dependencies: DependencyStatus | None = None
    mails: MailStats | None = None


class OutboxCollector(Collector):
    """Reads the outbox once for each scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Return nothing: registering the collector must not read from PostgreSQL."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the present state; only whether it can be read, if PostgreSQL is unreachable or too slow."""
        reading = self._read()
        if reading.is_up is not None:
            yield GaugeMetricFamily(
                "outbox_postgresql_up", "Whether PostgreSQL answered this scrape", value=float(reading.is_up)
            )
        unreadable = GaugeMetricFamily(
            "outbox_unreadable",
            "Whether PostgreSQL answered but the outbox could not be read; this scrape then lacks the other metrics",
            labels=["reason"],
        )
        for reason in get_args(Unreadable):
            unreadable.add_metric([reason], float(reading.unreadable == reason))
        yield unreadable
        if reading.live is not None and reading.dependencies is not None:
            yield from _live(reading.live)
            yield from _dependencies(reading.dependencies)
        if reading.destinations is not None:
            yield from _destinations(reading.destinations)
        if reading.mails is not None:
            yield from _mails(reading.mails)


def _live(live: list[LiveState]) -> Iterator[Metric]:
    labels = ["status", "queue"]
    messages = GaugeMetricFamily("outbox_messages", "Unfinished messages, counted up to 10,000", labels=labels)
    estimated = GaugeMetricFamily(
        "outbox_messages_estimated",
        "Whether outbox_messages and outbox_oldest_seconds are estimates: there are more messages than are counted",
        labels=labels,
    )
    oldest = GaugeMetricFamily(
        "outbox_oldest_seconds",
        "How long the oldest message has had this status; pending counts from the moment it was due",
        labels=labels,
    )
    for each in live:
        messages.add_metric([each.status, each.queue], each.messages)
        estimated.add_metric([each.status, each.queue], float(each.is_estimate))
        oldest.add_metric([each.status, each.queue], each.oldest_seconds)
    yield messages
    yield estimated
    yield oldest


def _dependencies(dependencies: DependencyStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "outbox_finished_messages_estimate",
        "Finished messages, estimated by PostgreSQL's statistics",
        value=dependencies.finished_estimate,
    )
    yield GaugeMetricFamily("outbox_relays_alive", "Relays that recently completed a pass", value=dependencies.relays)
    yield GaugeMetricFamily(
        "outbox_relay_seen_seconds",
        "How long ago a relay last completed a pass; infinite if none ever did",
        value=math.inf if dependencies.relay_seen_seconds is None else dependencies.relay_seen_seconds,
    )
    yield GaugeMetricFamily(
        "outbox_mail_server_away_seconds",
        "How long the mail server has been known to be unavailable; 0 while it is available",
        value=dependencies.mail_away_seconds or 0.0,
    )


def _destinations(destinations: list[DestinationStats]) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "outbox_destination_messages",
        "Unfinished messages of a destination, counted up to 1,000 of each status",
        labels=["destination", "status"],
    )
    gauges = {
        name: GaugeMetricFamily(f"outbox_destination_{name}", text, labels=["destination"])
        for name, text in (
            ("oldest_seconds", "How long the oldest pending message of a destination has been due"),
            ("unreachable_seconds", "How long a destination has been known to be unreachable; 0 while it is not"),
            ("paused_seconds", "How long a destination has been paused by an operator; 0 while it is not"),
            ("disabled_seconds", "How long a webhook endpoint has been disabled; 0 while it is not"),
            ("max_per_second", "The messages that may be sent to a destination in a second; infinite without a limit"),
            ("max_in_flight", "The messages of a destination that may be in hand at a time; infinite without a limit"),
        )
    }
    for each in destinations:
        label = [each.name]
        for status, number in (("pending", each.pending), ("published", each.published), ("running", each.running)):
            messages.add_metric([each.name, status], number)
        gauges["oldest_seconds"].add_metric(label, each.oldest_seconds)
        gauges["unreachable_seconds"].add_metric(label, each.unreachable_seconds or 0.0)
        paused_seconds = each.paused_seconds or 0.0
        gauges["paused_seconds"].add_metric(label, 0.0 if each.is_disabled else paused_seconds)
        gauges["disabled_seconds"].add_metric(label, paused_seconds if each.is_disabled else 0.0)
        for name, limit in (("max_per_second", each.max_per_second), ("max_in_flight", each.max_in_flight)):
            gauges[name].add_metric(label, math.inf if limit is None else limit)
    yield messages
    yield from gauges.values()


def _mails(mails: MailStats) -> Iterator[Metric]:
    limited = GaugeMetricFamily(
        "outbox_limited_mails",
        "Verification mails that wait for a limit, and those that one discarded within a day, up to 10,000",
        labels=["state"],
    )
    limited.add_metric(["waiting"], mails.waiting)
    limited.add_metric(["discarded"], mails.discarded)
    yield limited
    accounts = GaugeMetricFamily(
        "outbox_mailed_accounts",
        "Accounts that were mailed a day to two days ago, of the newest 1,000 mails, by whether they are verified now",
        labels=["verified"],
    )
    accounts.add_metric(["yes"], mails.verified)
    accounts.add_metric(["no"], mails.unverified)
    yield accounts
