"""The present number of verification mails that a limit delays or discards, and of the accounts that were verified."""

from dataclasses import dataclass
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.operations.stats import COUNTED_EXACTLY

ACCOUNTS_READ: Final = 1000

WANTED_AT: Final = """coalesce(
    (SELECT m.due_at FROM verification_mails AS m WHERE m.message_id = outbox_finished.id), created_at)"""
"""When a row of outbox_finished was first due: a wait for a limit, or a chosen delay, is no latency."""

_SELECT: Final = f"""
    SELECT (SELECT count(*)
              FROM (SELECT FROM verification_mails WHERE state IN ('waiting', 'daily') AND due_at > now()
                     ORDER BY due_at LIMIT {COUNTED_EXACTLY}) AS first),
           (SELECT count(*)
              FROM (SELECT FROM verification_mails WHERE state = 'discarded' AND due_at > now() - interval '1 day'
                     ORDER BY due_at LIMIT {COUNTED_EXACTLY}) AS first),
           count(u.username), count(*) - count(u.username)
      FROM (SELECT DISTINCT f.payload ->> 'username' AS username
              FROM (SELECT message_id
                      FROM verification_mails
                     WHERE state <> 'discarded'
                       AND due_at > now() - interval '2 days' AND due_at <= now() - interval '1 day'
                     ORDER BY due_at DESC LIMIT {ACCOUNTS_READ}) AS asked
              JOIN outbox_finished AS f ON f.id = asked.message_id AND f.status = 'done') AS mailed
      LEFT JOIN users AS u ON u.username = mailed.username AND u.is_email_verified
"""  # noqa: S608 - our own constants


@dataclass(frozen=True, slots=True)
class MailStats:
    """Numbers about verification mails.

    Attributes:
        waiting: mails that wait for a limit; COUNTED_EXACTLY for that many or more.
        discarded: mails that a limit discarded within a day; COUNTED_EXACTLY for that many or more.
        verified, unverified: accounts that were mailed one to two days ago and are verified now or not, of the newest
            ACCOUNTS_READ mails.

    """

    waiting: int
    discarded: int
    verified: int
    unverified: int


def read_mail_stats(connection: DbConnection) -> MailStats:
    """Return the numbers about verification mails."""
    row = connection.execute(_SELECT).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return MailStats(*map(int, row))
