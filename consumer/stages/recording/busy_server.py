"""Find out whether a busy mail server accepts other mails meanwhile, from this worker or from another."""

from typing import Final

from consumer.model.outcomes import TAKES_NO_MORE
from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim

WAIT_SECONDS: Final = 2.0
"""How long a message waits when its worker gets no connection and other workers have some."""

_FREE_SECONDS: Final = 3600.0
"""The age of a message up to which such a refusal spends no attempt, since a rate limit looks the same. An older
message spends attempts, so that every message ends."""


def serves_others(connection: DbConnection) -> bool:
    """Return whether a mail was accepted in the last seconds: then the server is available, but has no place for us.

    The clock is read in subqueries: an index search needs values that cannot change during the statement.
    """
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM outbox_finished
             WHERE finished_at > (SELECT clock_timestamp() - make_interval(secs => %s))
               AND finished_at <= (SELECT clock_timestamp())
               AND destination = 'mail' AND status = 'done'
        )
        """,
        [WAIT_SECONDS],
    ).fetchone()
    return row is not None and bool(row[0])


def refuses_this_one_alone(connection: DbConnection, claim: Claim, delay_seconds: float) -> bool:
    """Return whether this message is old, was released with TAKES_NO_MORE before, and another was accepted since then.

    The time of the release is its due time minus the delay.

    Args:
        connection: in a transaction.
        claim: the message, which was refused in the same way again.
        delay_seconds: how long a message waits after such a release.

    """
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM outbox_finished
             WHERE finished_at > message.due_at - make_interval(secs => %(delay)s) AND finished_at < message.claimed_at
               AND destination = 'mail' AND status = 'done'
        )
          FROM outbox AS message
         WHERE id = %(id)s AND claim_token = %(token)s AND starts_with(last_error, %(reason)s)
           AND isfinite(due_at) AND created_at < clock_timestamp() - make_interval(secs => %(free)s)
        """,
        {
            "free": _FREE_SECONDS,
            "id": claim.id,
            "token": claim.token,
            "delay": delay_seconds,
            "reason": TAKES_NO_MORE,
        },
    ).fetchone()
    return row is not None and bool(row[0])
