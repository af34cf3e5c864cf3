"""Dead letters in groups: by their task and their reason, without the parts of a reason that vary.

A group is named by a hash of both, which an index of `outbox` holds: reading the groups costs the same however many
dead letters there are, and a step of a retry reads the dead letters of its group alone. PostgreSQL computes the hash
once, when a message dies.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import moment
from shared.outbox.operations.stats import COUNTED_EXACTLY

LARGEST_NUMBER_OF_GROUPS: Final = 1000
"""Reasons with free text in them can make a group of each dead letter."""

_ALMOST_NONE: Final = 100
"""The largest groups are found by counting each up to this number."""

_REASON: Final = 'last_error COLLATE "C"'

_CODE: Final = rf"""substring({_REASON} from
    '^(?:(?:[A-Za-z ]*(?:: |answered |HTTP |status ))?[2-5][0-9][0-9](?:[ -][245]\.[0-9]+\.[0-9]+)?(?:[ ,:;-]|$)|)')"""
"""The beginning of a reason that is kept as it is: words and a reply code, such as `refused: 550 5.1.1`."""

GENERAL_REASON: Final = rf"""
    left({_CODE} || regexp_replace(substr(left({_REASON}, 1000), 1 + length({_CODE})),
    '''[^'' ](?:[^'']*[^'' ])?''|"[^"]*"|<[^<>]*>|[^ ]*[0-9@](?:[^ ]*[^ ,:;.])?|[a-z-]+\.[a-z.-]*[a-z]', '*', 'g'),
    200)
"""
"""The reason of a dead letter with * for each part that varies: quoted values, values in angle brackets, words with a
digit or an @ in them, names of hosts. The rest after 200 characters is cut off."""

GROUP_KEY: Final = f"hashtextextended(task || ' ' || {GENERAL_REASON}, 0)"
"""The hash that names a group. The index outbox_dead_group_idx of schema.sql has the same expression."""

IS_DEAD: Final = "status || '' = 'dead'"
"""The condition of outbox_dead_group_idx. PostgreSQL cannot know that it is that of outbox_dead_idx too, whose scan
would compute the hash of each dead letter: when many have died suddenly, it believes that there are none, and takes
both indexes for as fast."""

_DIED_AT: Final = moment("coalesce(claimed_at, created_at)")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Dead letters of one task that died for the same reason. The attributes' names are the keys of `--json`.

    Attributes:
        id: the group's name, 16 hexadecimal digits.
        task: the task.
        reason: the reason, with * for each part that varies.
        messages: how many they are; COUNTED_EXACTLY if there are more.
        are_all: whether all were counted.
        first_seen: when the first of those that were counted was last claimed.
        last_seen: when the last of them was, or the newest message.
        newest_id: the id of the newest message.

    """

    id: str
    task: str
    reason: str
    messages: int
    are_all: bool
    first_seen: datetime | None
    last_seen: datetime | None
    newest_id: int


@dataclass(frozen=True, slots=True)
class FailureGroups:
    """The largest groups, the largest first.

    Attributes:
        shown: the groups.
        others: the number of other groups; LARGEST_NUMBER_OF_GROUPS are counted in all.
        are_all: whether all groups were counted. If not, larger ones may be among those that were not read.

    """

    shown: list[FailureGroup]
    others: int
    are_all: bool


def group_key(group_id: str) -> int | None:
    """Return the hash that a group's id stands for; None if the text is no such id."""
    if not re.fullmatch("[0-9a-f]{16}", group_id, re.ASCII):
        return None
    return int.from_bytes(bytes.fromhex(group_id), "big", signed=True)


@own_transaction
def list_groups(connection: DbConnection, limit: int = LARGEST_NUMBER_OF_GROUPS) -> FailureGroups:
    """Return up to `limit` groups, the largest first. Call it in a read_transaction, which keeps to the indexes."""
    # A recursive search jumps from group to group along the index. PostgreSQL computes the hash of one row for each.
    rows = connection.execute(
        f"""
        WITH RECURSIVE keys (key) AS (
            (SELECT {GROUP_KEY} FROM outbox WHERE {IS_DEAD} ORDER BY {GROUP_KEY} LIMIT 1)
            UNION ALL
            SELECT (SELECT {GROUP_KEY}
                      FROM outbox
                     WHERE {IS_DEAD} AND {GROUP_KEY} > keys.key
                     ORDER BY {GROUP_KEY} LIMIT 1)
              FROM keys
             WHERE keys.key IS NOT NULL
        ), found AS MATERIALIZED (
            SELECT key FROM keys WHERE key IS NOT NULL LIMIT {LARGEST_NUMBER_OF_GROUPS} + 1
        ), largest AS MATERIALIZED (
            SELECT key
              FROM (SELECT key FROM found LIMIT {LARGEST_NUMBER_OF_GROUPS}) AS read,
                   LATERAL (SELECT count(*) AS messages
                              FROM (SELECT FROM outbox
                                     WHERE {IS_DEAD} AND {GROUP_KEY} = read.key
                                     LIMIT {_ALMOST_NONE}) AS first) AS counted
             ORDER BY messages DESC, key
             LIMIT %(limit)s
        )
        SELECT (SELECT count(*) FROM found), lpad(to_hex(key), 16, '0'), newest.task, newest.reason,
               least(messages, {COUNTED_EXACTLY}), messages <= {COUNTED_EXACTLY},
               first_died_at, greatest(last_died_at, newest.died_at), newest.id
          FROM largest,
               LATERAL (SELECT count(*) AS messages, min(died_at) AS first_died_at, max(died_at) AS last_died_at
                          FROM (SELECT {_DIED_AT} AS died_at
                                  FROM outbox
                                 WHERE {IS_DEAD} AND {GROUP_KEY} = largest.key
                                 ORDER BY id LIMIT {COUNTED_EXACTLY} + 1) AS first) AS counted,
               LATERAL (SELECT id, task, {GENERAL_REASON} AS reason, {_DIED_AT} AS died_at
                          FROM outbox
                         WHERE {IS_DEAD} AND {GROUP_KEY} = largest.key
                         ORDER BY id DESC LIMIT 1) AS newest
         ORDER BY messages DESC, newest.died_at DESC, key
        """,  # noqa: S608 - expressions and constants of our own
        {"limit": limit},
    ).fetchall()
    number = min(rows[0][0], LARGEST_NUMBER_OF_GROUPS) if rows else 0
    return FailureGroups(
        shown=[FailureGroup(*row[1:]) for row in rows],
        others=number - len(rows),
        are_all=not rows or rows[0][0] <= LARGEST_NUMBER_OF_GROUPS,
    )
