"""Limit the verification mails that are due in one hour of the clock: to one recipient domain, and in total.

Counting never blocks. Each PostgreSQL backend adds to a row of its own, and a decision sums the committed rows. So a
limit can be exceeded by the signups that are in flight at the same moment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    CTE,
    Connection,
    DateTime,
    Insert,
    Integer,
    LargeBinary,
    SmallInteger,
    bindparam,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from api.accounts.mail_limits.scheduling import Schedule
from api.tables import mail_counts

TOTAL: Final = b"total"
_SLOTS: Final = 64
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HourlyLimits:
    """How many mails may be due in an hour, by scope: TOTAL, or the HMAC of a domain. Empty without limits."""

    by_scope: Mapping[bytes, int]

    def schedule(self, connection: Connection, schedule: Callable[[datetime | None], Schedule]) -> Schedule:
        """Return when the mail is due within the hourly limits too: it waits for the next hour below them.

        Args:
            connection: in the transaction of the decision.
            schedule: the schedule by the mailbox's own limits, for a mail that is not due before a time.

        """
        scheduled = schedule(None)
        if not self.by_scope or scheduled.reason is not None:
            return scheduled
        counts = self._read(connection, hour_of(scheduled.due_at))
        while self._is_full(counts, hour_of(scheduled.due_at)) and scheduled.reason is None:
            scheduled = schedule(hour_of(scheduled.due_at) + _HOUR)
        return scheduled

    def _is_full(self, counts: Mapping[tuple[bytes, datetime], int], hour: datetime) -> bool:
        return any(counts.get((scope, hour), 0) >= limit for scope, limit in self.by_scope.items())

    def values(self, scheduled: Schedule) -> dict[str, object]:
        """Return the values for the statement of `counted`."""
        return {"mail_scopes": list(self.by_scope), "mail_hour": hour_of(scheduled.due_at)} if self.by_scope else {}

    def _read(self, connection: Connection, since: datetime) -> dict[tuple[bytes, datetime], int]:
        statement = (
            select(mail_counts.c.scope, mail_counts.c.window_start, func.sum(mail_counts.c.mails))
            .where(mail_counts.c.scope.in_(self.by_scope), mail_counts.c.window_start >= since)
            .group_by(mail_counts.c.scope, mail_counts.c.window_start)
        )
        return {(bytes(scope), hour): mails for scope, hour, mails in connection.execute(statement)}


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour."""
    return moment.replace(minute=0, second=0, microsecond=0)


def counted(message: CTE) -> Insert:
    """Return the INSERT that counts each row of `message` in all scopes of its hour."""
    scopes = (
        func.unnest(bindparam("mail_scopes", type_=ARRAY(LargeBinary)))
        .table_valued(column("scope", LargeBinary))
        .render_derived()
    )
    row: dict[str, Any] = {
        "scope": scopes.c.scope,
        "window_start": bindparam("mail_hour", type_=DateTime(timezone=True)),
        "slot": cast(func.mod(func.pg_backend_pid(), _SLOTS), SmallInteger),
        "mails": cast(func.count(message.c.id), Integer),
    }
    rows = select(*row.values()).select_from(message).join(scopes, true()).group_by(scopes.c.scope)
    # In one order everywhere: otherwise two backends with the same slot could wait for each other.
    rows = rows.order_by(scopes.c.scope)
    statement = insert(mail_counts).from_select(list(row), rows)
    total = mail_counts.c.mails + statement.excluded.mails
    return statement.on_conflict_do_update(
        index_elements=["scope", "window_start", "slot"], set_={"mails": total}
    ).returning(mail_counts.c.mails)
