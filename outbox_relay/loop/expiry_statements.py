"""The SQL that deletes accounts whose address was never verified: three statements of one transaction.

An account may go when its row is old, its links ended long ago, and none of its mails has anything ahead. A dead letter
has, unless its recipient is the reason: that one goes with the account, as discarded. The same is asked of other
unverified accounts of its address: any link of an address serves each of them, and where a limit lets one mail of an
address wait, it stands for all.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.outbox.publishing import DbConnection


class AccountCursor(NamedTuple):
    """Behind which unverified account the next step begins: its creation and its name."""

    created_at: str
    """As PostgreSQL wrote it, to the microsecond."""
    username: str


FIRST: Final = AccountCursor("-infinity", "")


class LockedAccounts(NamedTuple):
    """What a step has looked at, and the accounts among them that it has locked, since they may go."""

    clock: float
    """The database's time, in seconds since the epoch."""
    looked_at: int
    last: AccountCursor | None
    usernames: Sequence[str]


_OF_AN_ADDRESS: Final = 1000
"""So many accounts of an address are looked at for each other, the oldest: somebody may make many."""

_BEFORE: Final = "now() - make_interval(secs => %(days)s * 86400.0)"


def _finds(query: str) -> str:
    """Return the condition that a query finds a row, asked for one account after the other.

    EXISTS may be planned as a join, which reads the mails or links of everybody.
    """
    return f"coalesce((SELECT true {query} LIMIT 1), false)"


def _is_mail_of(username: str) -> str:
    """Return the condition that a message is a mail of this account, as outbox_account_idx serves it."""
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

_ADDRESS_IS_WAITED_FOR: Final = _finds(
    f"""
    FROM (
        SELECT username
          FROM users
         WHERE lower(email) = asked.address AND NOT is_email_verified
         ORDER BY created_at
         LIMIT {_OF_AN_ADDRESS}
    ) AS u
    WHERE {_HAS_A_LINK} OR {_HAS_A_MAIL}
    """  # noqa: S608 - expressions of our own
)


def lock_accounts(connection: DbConnection, unverified_days: float, limit: int, after: AccountCursor) -> LockedAccounts:
    """Look at up to `limit` unverified accounts, the oldest first, and lock those that may go.

    Rows that are locked are passed over: a session that appends a mail, corrects or verifies holds the account's.

    Args:
        connection: inside a transaction; the locks last until its end.
        unverified_days: how long an account may wait.
        limit: how many at the most.
        after: where the last step ended.

    """
    row = connection.execute(
        f"""
        WITH looked_at AS MATERIALIZED (
            SELECT username, created_at, lower(email) AS address
              FROM users
             WHERE NOT is_email_verified AND created_at < {_BEFORE}
               AND (created_at, username) > (%(created_at)s::timestamptz, %(username)s::text)
             ORDER BY created_at, username
             LIMIT %(limit)s
        ), waited_for AS MATERIALIZED (
            SELECT address
              FROM (SELECT DISTINCT address FROM looked_at) AS asked
             WHERE {_ADDRESS_IS_WAITED_FOR}
        ), locked AS MATERIALIZED (
            SELECT u.username
              FROM looked_at
              JOIN users AS u USING (username)
             WHERE {_IS_OLD} AND NOT {_HAS_A_LINK} AND NOT {_HAS_A_MAIL}
               AND looked_at.address NOT IN (SELECT address FROM waited_for)
               FOR UPDATE OF u SKIP LOCKED
        )
        SELECT extract(epoch FROM clock_timestamp())::float8,
               (SELECT count(*) FROM looked_at),
               (SELECT created_at::text FROM looked_at ORDER BY created_at DESC, username DESC LIMIT 1),
               (SELECT username FROM looked_at ORDER BY created_at DESC, username DESC LIMIT 1),
               ARRAY(SELECT username FROM locked)
        """,  # noqa: S608 - expressions of our own
        {"days": unverified_days, "limit": limit, **after._asdict()},
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    clock, looked_at, created_at, username, usernames = row
    return LockedAccounts(clock, looked_at, AccountCursor(created_at, username) if looked_at else None, usernames)


def lock_refused_mails(connection: DbConnection, usernames: Sequence[str]) -> list[int]:
    """Lock the dead letters that go with these accounts, so that nobody retries one meanwhile, and return their ids."""
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
    """Delete those of the locked accounts that may still go, with their links and refused mails; return how many.

    A statement of its own, since only a snapshot from after the locks shows what was appended before them.
    """
    row = connection.execute(
        f"""
        WITH waited_for AS MATERIALIZED (
            SELECT address
              FROM (SELECT DISTINCT lower(email) AS address FROM users WHERE username = ANY(%(usernames)s)) AS asked
             WHERE {_ADDRESS_IS_WAITED_FOR}
        ), gone AS (
            DELETE FROM users AS u
             USING unnest(%(usernames)s::text[]) AS locked (username)
             WHERE u.username = locked.username AND {_IS_OLD} AND NOT {_HAS_A_LINK}
               AND lower(u.email) NOT IN (SELECT address FROM waited_for)
               AND NOT {_HAS_A_MAIL_THAT_IS_NOT_LOCKED}
            RETURNING u.username
        ), discarded AS (
            DELETE FROM outbox AS o
             USING gone
             WHERE {_is_mail_of("gone.username")} AND o.id = ANY(%(refused)s::bigint[])
            RETURNING o.*
        ), finished AS (
            INSERT INTO outbox_finished (
                id, task, payload, queue, status, due_at, generation, attempt, max_retries, last_error, failures,
                traceparent, created_at, published_at, claimed_at, finished_at, uid)
            SELECT id, task, payload, queue, 'discarded', due_at, generation, attempt, max_retries,
                   'discarded: its account was not verified in time', failures,
                   traceparent, created_at, published_at, claimed_at, clock_timestamp(), uid
              FROM discarded
        )
        SELECT count(*) FROM gone
        """,  # noqa: S608 - expressions of our own
        {"days": unverified_days, "usernames": list(usernames), "refused": list(refused)},
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return int(row[0])
