"""The reaper, part of every relay: brings back what a dead worker or a forgetful Redis left behind."""

from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker import Broker, BrokerUnavailableError
from shared.logs import lines_of
from shared.outbox import publishing
from shared.outbox.publishing import DbConnection, Reaped, Row, Suspect
from shared.rq_format.ids import job_id

_log = structlog.get_logger(__name__)

POP_TO_CLAIM_SECONDS: Final = 5.0
"""A job that was popped is claimed within this time, unless its worker died or stands still."""

_REAPED_AT_ONCE: Final = 1000
SUSPECTS_AT_ONCE: Final = 50_000
"""More would keep the relay from publishing for seconds; what is left is looked at when it is the reaper's turn."""
_RENEWED_AT_ONCE: Final = 5000
"""A renewal locks its rows; a claim of one of them waits for that long."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one search for forgotten messages did."""

    renewed: int = 0
    returned_by_lease: int = 0
    returned_by_epoch: int = 0
    is_partial: bool = False
    """There were more suspects than one round looks at, and it got further with these."""
    suspects: int = field(default=0, compare=False)
    """How many rows it looked for in Redis. Rounds that did the same are equal, however much they looked at."""


class Reaper:
    """Looks for messages that nobody works on any more.

    What it remembers (which jobs were missing once) may be lost with the process: the next one sees them again.
    """

    def __init__(
        self, broker: Broker, *, publish_lease_seconds: float, suspects_at_once: int = SUSPECTS_AT_ONCE
    ) -> None:
        """Keep what every round needs."""
        self._broker = broker
        self._publish_lease_seconds = publish_lease_seconds
        self._suspects_at_once = suspects_at_once
        self._missed_since: dict[Row, float] = {}

    def reap_running(self, connection: DbConnection) -> tuple[Reaped, ...]:
        """Take back the messages whose worker died. Needs no Redis."""
        return tuple(publishing.reap_running(connection, _REAPED_AT_ONCE))

    def reap_published(self, connection: DbConnection) -> Round:
        """Compare the published rows that look forgotten with what stands in Redis, and mend what is missing.

        The rows are read first and the lists after them: a row published in between is no suspect, and the job of a
        suspect was pushed before the lists were read.

        Raises:
            BrokerUnavailableError: Redis could not be asked; nothing was changed.

        """
        epoch = self._broker.epoch()
        suspects = publishing.find_suspects(connection, epoch, self._suspects_at_once)
        if not suspects:
            self._missed_since.clear()
            return Round()
        listed, epoch_of_lists = self._broker.read_lists({_name(suspect) for suspect in suspects})
        if epoch_of_lists != epoch:
            # Redis began another life in between: the suspects were chosen by the old one.
            return Round(suspects=len(suspects))
        missing = [suspect for suspect in suspects if _name(suspect) not in listed]
        gone = set(missing)
        renewed = self._renew(connection, [suspect.row for suspect in suspects if suspect not in gone], epoch)
        by_lease = self._return(connection, self._missed_long_enough(missing))
        by_epoch = self._return(connection, [suspect.row for suspect in missing if not suspect.same_epoch])
        got_further = bool(renewed or by_lease or by_epoch)
        self._delete_orphans([*by_lease, *by_epoch])
        is_partial = got_further and len(suspects) == self._suspects_at_once
        return Round(renewed, len(by_lease), len(by_epoch), is_partial, len(suspects))

    def _missed_long_enough(self, missing: list[Suspect]) -> list[Row]:
        """Give the rows that were missing in an earlier round too, longer ago than a pop may precede its claim."""
        now = monotonic()
        rows = [suspect.row for suspect in missing if suspect.same_epoch]
        self._missed_since = {row: self._missed_since.get(row, now) for row in rows}
        return [row for row in rows if now - self._missed_since[row] >= POP_TO_CLAIM_SECONDS]

    def _renew(self, connection: DbConnection, rows: list[Row], epoch: str) -> int:
        return sum(
            publishing.renew_found(connection, chunk, epoch, self._publish_lease_seconds) for chunk in _chunks(rows)
        )

    @staticmethod
    def _return(connection: DbConnection, rows: list[Row]) -> list[Row]:
        returned = [row for chunk in _chunks(rows) for row in publishing.return_missing(connection, chunk)]
        for ids in lines_of([row.id for row in returned]):
            _log.warning("messages.returned", message_ids=ids, meaning="Redis lost their jobs")
        return returned

    def _delete_orphans(self, rows: list[Row]) -> None:
        """Delete what the lost jobs left in Redis. Where it is away, that stays there and harms nobody."""
        if rows:
            with suppress(BrokerUnavailableError):
                self._broker.delete_orphans(rows)


def _name(suspect: Suspect) -> bytes:
    return job_id(suspect.row.id, suspect.row.generation).encode()


def _chunks(rows: list[Row]) -> list[list[Row]]:
    return [rows[start : start + _RENEWED_AT_ONCE] for start in range(0, len(rows), _RENEWED_AT_ONCE)]
