"""The statements that delete accounts whose address was never verified: three statements of one transaction.

An account is deleted when its row is old, its links expired long ago, and none of its mails is unfinished. A dead
letter counts as unfinished, unless its recipient is the reason: then it is discarded with the account. The same must
hold for the other unverified accounts of the address, because any link of an address verifies each of them, and one
mail that waits for a limit serves all of them.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.database.connections import DbConnection
from shared.outbox.columns import insert_finished


class AccountCursor(NamedTuple):
    """The unverified account after which the next step begins: its creation time and its name."""

    created_at: str
    """As PostgreSQL wrote it, to the microsecond."""
    username: str


FIRST: Final = AccountCursor("-infinity", "")


class LockedAccounts(NamedTuple):
    """The accounts that a step has checked, and those among them that it has locked because they have expired."""

    clock: float
    """The database's time, in seconds since the epoch."""
    checked: int
    last: AccountCursor | None
    usernames: Sequence[str]


_REASON: Final = "'discarded: its account was not verified in time'"

_OF_AN_ADDRESS: Final = 1000
"""The largest number of accounts of one address that are compared, the oldest ones: anyone can create many."""

_BEFORE: Final = "now() - make_interval(secs => %(days)s * 86400.0)"


def _finds(query: str) -> str:
    """Return the condition that a query finds a row, evaluated for each account separately.

    EXISTS may be planned as a join that reads the mails or links of all accounts.
    """
    return f"coalesce((SELECT true {query} LIMIT 1), false)"


def _is_mail_of(username: str) -> str:
    """Return the condition that a message is a mail of this account, in the form that outbox_account_idx serves."""
    return f"""
        starts_with(o.task, 'task:send_')
        AND left(o.payload ->> 'username', 64) COLLATE "C" = left({username}, 64)
        AND o.payload ->> 'username' = {username}
    """


_IS_OLD: Final = f"NOT u.is_email_verified AND greatest(u.created_at, u.email_set_at) < {_BEFORE}"

_HAS_A_LINK: Final = _finds(f"FROM verify_emails AS v WHERE v.username = u.username AND v.expires_at >= {_BEFORE}")

_IS_REFUSED: Final = "o.status = 'dead' AND coalesce(o.failures -> -1 -> 'about_recipient' = 'true', false)"

_HAS_A_MAIL: Final = _finds(f"FROM outbox AS o WHERE {_is_mail_of('u.username')} AND NOT ({_IS_REFUSED})")

_HAS_A_MAIL_THAT_IS_NOT_LOCKED: Final = _finds(
    f"FROM outbox AS o WHERE {_is_mail_of('u.username')} AND o.id <> ALL(%(refused)s::bigint[])"
)

_ADDRESS_HAS_UNFINISHED: Final = _finds(
    f"""
    FROM (
        SELECT username
          FROM users
         WHERE lower(email) = candidate.address AND NOT is_email_verified
         ORDER BY created_at
         LIMIT {_OF_AN_ADDRESS}
    ) AS u
    WHERE {_HAS_A_LINK} OR {_HAS_A_MAIL}
    """  # noqa: S608 - expressions of our own
)


def lock_accounts(connection: DbConnection, unverified_days: float, limit: int, after: AccountCursor) -> LockedAccounts:
    """Check up to `limit` unverified accounts, the oldest first, and lock those that have expired.

    Locked rows are skipped: a session that appends a mail, corrects the address or verifies it has locked the account.

    Args:
        connection: inside a transaction; the locks last until its end.
        unverified_days: how long an account may wait for its verification.
        limit: the largest number of accounts.
        after: where the last step ended.

    """
    row = connection.execute(
        f"""
        WITH checked AS MATERIALIZED (
            SELECT username, created_at, lower(email) AS address
              FROM users
             WHERE NOT is_email_verified AND created_at < {_BEFORE}
               AND (created_at, username) > (%(created_at)s::timestamptz, %(username)s::text)
             ORDER BY created_at, username
             LIMIT %(limit)s
        ), unfinished AS MATERIALIZED (
            SELECT address
              FROM (SELECT DISTINCT address FROM checked) AS candidate
             WHERE {_ADDRESS_HAS_UNFINISHED}
        ), locked AS MATERIALIZED (
            SELECT u.username
              FROM checked
              JOIN users AS u USING (username)
             WHERE {_IS_OLD} AND NOT {_HAS_A_LINK} AND NOT {_HAS_A_MAIL}
               AND checked.address NOT IN (SELECT address FROM unfinished)
               FOR UPDATE OF u SKIP LOCKED
        )
        SELECT extract(epoch FROM clock_timestamp())::float8,
               (SELECT count(*) FROM checked),
               (SELECT created_at::text FROM checked ORDER BY created_at DESC, username DESC LIMIT 1),
               (SELECT username FROM checked ORDER BY created_at DESC, username DESC LIMIT 1),
               ARRAY(SELECT username FROM locked)
        """,  # noqa: S608 - expressions of our own
        {"days": unverified_days, "limit": limit, **after._asdict()},
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    clock, checked, created_at, username, usernames = row
    return LockedAccounts(clock, checked, AccountCursor(created_at, username) if checked else None, usernames)


def lock_refused_mails(connection: DbConnection, usernames: Sequence[str]) -> list[int]:
    """Lock the dead letters that are discarded with these accounts, and return their ids."""
    rows = connection.execute(
        f"""
        SELECT o.id
          FROM unnest(%s::text[]) AS account (username)
          JOIN outbox AS o ON {_is_mail_of("account.username")}
         WHERE {_IS_REFUSED}
         ORDER BY o.id
           FOR UPDATE OF o SKIP LOCKED
        """,  # noqa: S608 - expressions of our own
        [list(usernames)],
    ).fetchall()
    return [id_ for (id_,) in rows]


def delete_accounts(
    connection: DbConnection, unverified_days: float, usernames: Sequence[str], refused: Sequence[int]
) -> int:
    """Delete those of the locked accounts that have still expired, with their links and refused mails; return how many.

    It is a statement of its own because only a snapshot taken after the locks shows what was appended before them.
    """
    row = connection.execute(
        f"""
        WITH unfinished AS MATERIALIZED (
            SELECT address
              FROM (SELECT DISTINCT lower(email) AS address FROM users WHERE username = ANY(%(usernames)s)) AS candidate
             WHERE {_ADDRESS_HAS_UNFINISHED}
        ), gone AS (
            DELETE FROM users AS u
             USING unnest(%(usernames)s::text[]) AS locked (username)
             WHERE u.username = locked.username AND {_IS_OLD} AND NOT {_HAS_A_LINK}
               AND lower(u.email) NOT IN (SELECT address FROM unfinished)
               AND NOT {_HAS_A_MAIL_THAT_IS_NOT_LOCKED}
            RETURNING u.username
        ), discarded AS (
            DELETE FROM outbox AS o
             USING gone
             WHERE {_is_mail_of("gone.username")} AND o.id = ANY(%(refused)s::bigint[])
            RETURNING o.*
        ), finished AS (
            {insert_finished("discarded", status="'discarded'", last_error=_REASON)}
        )
        SELECT count(*) FROM gone
        """,  # noqa: S608 - expressions of our own
        {"days": unverified_days, "usernames": list(usernames), "refused": list(refused)},
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return int(row[0])
