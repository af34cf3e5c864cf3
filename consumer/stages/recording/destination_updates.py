"""What outcomes say about destinations: written after the outcomes, in the same transaction, and never in their way.

Somebody may have locked a destination's row: an operator who left a transaction open, or a relay that pushes a probe to
a frozen Redis. Then what is to be written about this destination is left out. The outcomes count; the end of the
probe's time, or the next message, corrects the breaker.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Accepted, Completed, DestinationUnavailable, Failed, TaskUnknown
from shared.database.connections import DbConnection
from shared.database.errors import LOCKED
from shared.outbox.claiming import releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.destinations import breaker
from shared.outbox.messages import LOCAL, MAIL, UNKNOWN

_log = structlog.get_logger(__name__)

_PROBE_PAUSE_SECONDS: Final = 1.0
"""The least time before the next probe, when one has found out nothing: else nothing would keep them from spinning."""

_NOT_OPENED_SECONDS: Final = 5.0
"""How long a message waits that has found its destination unavailable, if that could not be written: no open breaker
keeps it from being published again at once."""

WITHOUT_BREAKER: Final = frozenset({LOCAL, UNKNOWN})
"""The destinations that are no outside system: one message says nothing about the others."""

Log = Callable[[], object]
"""Logs something, once the transaction is committed."""

Update = Callable[[], Log | None]
"""Writes something about a destination, and returns what to log."""


class DestinationUpdates:
    """Collects what the outcomes of one transaction say about each destination, and writes it."""

    def __init__(self, connection: DbConnection, backoff_scale: float) -> None:
        """Use this transaction. `backoff_scale` multiplies the pauses between probes."""
        self._connection = connection
        self._backoff_scale = backoff_scale
        self._updates: defaultdict[str, list[Update]] = defaultdict(list)
        self._found_unavailable: defaultdict[str, list[Claim]] = defaultdict(list)
        """The messages that this transaction has released because of that, by destination."""

    def add_outage(self, result: AttemptResult, outage: DestinationUnavailable, *, is_released: bool) -> None:
        """Open the breaker: this message has found its destination unavailable. Its row may have been released."""
        name = result.message.claim.destination
        if name in WITHOUT_BREAKER:
            return
        is_news = not result.message.destination.is_open and name not in self._found_unavailable
        self._found_unavailable[name] += [result.message.claim] if is_released else []
        log = partial(_log_unavailable, name, outage.reason) if is_news else None
        self.add(name, partial(self._open, result, outage, log))

    def add_result(self, result: AttemptResult) -> None:
        """Close an open breaker if the destination has answered. Release the probe if it found out nothing.

        During an outage by policy only an accepted mail closes the breaker.
        """
        claim = result.message.claim
        former = claim.former_destination
        if former is not None and former != claim.destination:
            # Perhaps it was the probe of the destination that its row named. It says nothing about that one.
            self.add(former, partial(self._release_probe, former, claim.id, 0))
        if claim.destination == UNKNOWN and isinstance(result.outcome, TaskUnknown):
            # There may be any number of them: the relays keep few of them published.
            self.add(UNKNOWN, partial(breaker.mark_slow, self._connection, UNKNOWN))
        if result.message.destination.is_open and not isinstance(result.outcome, DestinationUnavailable):
            self.add(claim.destination, partial(self._note_result, result))

    def add_done(self, message: ClaimedMessage) -> None:
        """Release the probe, if this message was it: it was done without its destination."""
        name = message.claim.destination
        if message.is_probe:
            self.add(name, partial(self._release_probe, name, message.claim.id, _PROBE_PAUSE_SECONDS))

    def add(self, name: str, update: Update) -> None:
        """Add anything that is to be written about a destination."""
        self._updates[name].append(update)

    def write(self) -> list[Log]:
        """Write everything, in the order of the destinations' names, and return what to log after the commit."""
        logs: list[Log] = []
        for name in sorted(self._updates):
            self._connection.execute("SAVEPOINT destination; SET LOCAL lock_timeout = '100ms'")
            try:
                written = [update() for update in self._updates[name]]
            except LOCKED:
                self._connection.execute("ROLLBACK TO SAVEPOINT destination")
                self._postpone(name)
                logs.append(partial(_log_locked, name))
            else:
                self._connection.execute("RELEASE SAVEPOINT destination")
                logs.extend(log for log in written if log is not None)
        return logs

    def _postpone(self, name: str) -> None:
        """Let the messages wait that have found this destination unavailable, and do not count it."""
        for claim in self._found_unavailable[name]:
            counts = None if name == MAIL else {"unavailable": claim.counts.unavailable}
            seconds = _NOT_OPENED_SECONDS * self._backoff_scale
            releases.postpone(self._connection, claim, delay_seconds=seconds, counts=counts)

    def _open(self, result: AttemptResult, outage: DestinationUnavailable, log: Log | None) -> Log | None:
        claim = result.message.claim
        breaker.open_breaker(
            self._connection,
            claim.destination,
            claim.id,
            outage.reason,
            self._backoff_scale,
            least_pause_seconds=outage.retry_after_seconds,
        )
        return log

    def _note_result(self, result: AttemptResult) -> Log | None:
        claim = result.message.claim
        match result.outcome:
            case (Accepted() | Completed() | Failed(maybe_accepted=False)) as answer:
                is_accepted = isinstance(answer, Accepted)
                if breaker.close_breaker(self._connection, claim.destination, is_accepted=is_accepted):
                    return partial(
                        _log.info, "destination.recovered", destination=claim.destination, message_id=claim.id
                    )
                # If the probe was refused by policy, it is decided with the refusals when the next one is sent.
                pause = None if result.recipient is not None else _PROBE_PAUSE_SECONDS
            case Failed():
                # The destination got a message and did not answer. It may do so each time.
                pause = breaker.LONGEST_PROBE_PAUSE_SECONDS
            case _:
                rate = result.message.destination.max_per_second or 1.0
                pause = max(_PROBE_PAUSE_SECONDS, min(breaker.LONGEST_PROBE_PAUSE_SECONDS, 1 / rate))
        if result.message.is_probe and pause is not None:
            self._release_probe(claim.destination, claim.id, pause)
        return None

    def _release_probe(self, name: str, message_id: int, seconds: float) -> None:
        breaker.release_probe(self._connection, name, message_id, seconds * self._backoff_scale)


def _log_unavailable(name: str, reason: str) -> None:
    meaning = f"messages for {name} wait until it is available again"
    _log.error("destination.unavailable", destination=name, error=reason, meaning=meaning)


def _log_locked(name: str) -> None:
    _log.warning(
        "destination.not_written",
        destination=name,
        meaning="another session has locked its row in outbox_destinations; a later outcome writes it",
    )
