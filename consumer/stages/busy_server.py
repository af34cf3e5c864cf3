"""What a mail server's refusal for now means beside the mails that it took meanwhile, from whichever worker."""

from typing import Final

from consumer.model.outcomes import TAKES_NO_MORE
from shared.database.connections import DbConnection
from shared.outbox.claims import Claim

WAIT_SECONDS: Final = 2.0
"""How long a message waits whose worker got no connection while others have some."""

_FREE_HOURS: Final = 1.0
"""How long such a refusal spends nothing, since a limit of mails in a time looks the same. From then on every message
comes to its end."""


def serves_others(connection: DbConnection) -> bool:
    """Return whether a mail was accepted in the last seconds: then the server is not away, it has no place for us.

    An index is searched only for what cannot change during the statement, so the clock is read by a subquery.
    """
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM outbox_finished
             WHERE finished_at > (SELECT clock_timestamp() - make_interval(secs => %s))
               AND finished_at <= (SELECT clock_timestamp())
               AND status = 'done'
        )
        """,
        [WAIT_SECONDS],
    ).fetchone()
    return row is not None and bool(row[0])


def refuses_this_one_alone(connection: DbConnection, claim: Claim, delay_seconds: float) -> bool:
    """Return whether this message is old, was released with TAKES_NO_MORE before, and another was accepted since.

    When it was released is read from its due time, which was set then.

    Args:
        connection: in a transaction.
        claim: the message, which was refused in the same way again.
        delay_seconds: how long a message waits that was released so.

    """
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM outbox_finished
             WHERE finished_at > message.due_at - make_interval(secs => %(delay)s) AND finished_at < message.claimed_at
               AND status = 'done'
        )
          FROM outbox AS message
         WHERE id = %(id)s AND claim_token = %(token)s AND starts_with(last_error, %(reason)s)
           AND isfinite(due_at) AND created_at < clock_timestamp() - make_interval(secs => %(free)s)
        """,
        {
            "free": _FREE_HOURS * 3600,
            "id": claim.id,
            "token": claim.token,
            "delay": delay_seconds,
            "reason": TAKES_NO_MORE,
        },
    ).fetchone()
    return row is not None and bool(row[0])
