"""Rows that the bounds of 0014 would not let in become dead letters, whose reason says what was there.

A dead letter may keep a payload of any size; what not even it may hold is brought into range. The table is walked over
in steps, and each row that is changed has a transaction of its own, so that nobody waits. A row that somebody holds
locked is tried again.
"""

import time
from collections.abc import Iterator

from alembic import op
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_EARLIEST, _LATEST = "timestamptz '0001-01-01 00:00:00+00'", "timestamptz '9999-12-31 00:00:00+00'"
_READ_AT_ONCE = 10_000
_WALKS = 60
_PAUSE_SECONDS = 1.0


def _is_out(column: str) -> str:
    return f"({column} NOT BETWEEN {_EARLIEST} AND {_LATEST}) IS TRUE"


_IS_PAYLOAD_OUT = "pg_column_size(payload) > 1048576"
_IS_DUE_OUT = f"isfinite(due_at) AND {_is_out('due_at')}"
_ARE_FAILURES_OUT = """
    (failures <> '[]' AND (pg_column_size(failures) > 1048576
                           OR jsonb_path_exists(failures, 'strict $[*] ? (@.type() != "object")', '{}', true)))
"""
_FAILURES = """
    CASE WHEN pg_column_size(failures) > 10000 THEN pg_column_size(failures) || ' bytes'
         ELSE left(failures::text, 200) END
"""
_TIMES = ("created_at", "published_at", "claimed_at", "lease_until")
_NUMBERS = ("generation", "attempt", "max_retries")
_TEXTS = {"task": 200, "broker_epoch": 200, "traceparent": 200, "last_error": 8000}

_IS_OUT_OF_BOUNDS = " OR ".join(
    [
        f"status <> 'dead' AND {_IS_PAYLOAD_OUT}",
        "id < 1",
        *(f"{column} >= 1000000000" for column in _NUMBERS),
        *(f"octet_length({column}) > {limit}" for column, limit in _TEXTS.items()),
        _IS_DUE_OUT,
        *(_is_out(column) for column in _TIMES),
        _ARE_FAILURES_OUT,
    ]
)

# What a dead letter's reason says of each column that is out of bounds.
_REASON = ", ".join(
    [
        f"CASE WHEN {_IS_PAYLOAD_OUT} THEN 'its payload takes ' || pg_column_size(payload) || ' bytes' END",
        "CASE WHEN id < 1 THEN 'id was ' || id END",
        *(f"CASE WHEN {column} >= 1000000000 THEN '{column} was ' || {column} END" for column in _NUMBERS),
        *(
            f"CASE WHEN octet_length({column}) > {limit} THEN '{column} had ' || octet_length({column})"
            f" || ' bytes: ' || left({column}, 100) END"
            for column, limit in _TEXTS.items()
        ),
        f"CASE WHEN {_IS_DUE_OUT} THEN 'due_at was ' || due_at END",
        *(f"CASE WHEN {_is_out(column)} THEN '{column} was ' || {column} END" for column in _TIMES),
        f"CASE WHEN {_ARE_FAILURES_OUT} THEN 'failures were ' || {_FAILURES} END",
        "CASE WHEN status = 'dead' AND octet_length(last_error) <= 8000 THEN 'before: ' || left(last_error, 500) END",
    ]
)

_FIND = f"""
    SELECT max(id), count(*), array_agg(id ORDER BY id) FILTER (WHERE is_out)
      FROM (SELECT id, {_IS_OUT_OF_BOUNDS} AS is_out
              FROM outbox WHERE id > %(after)s ORDER BY id LIMIT {_READ_AT_ONCE}) AS step
"""  # noqa: S608 - expressions of our own

_BRING_INTO_BOUNDS = f"""
    WITH found AS MATERIALIZED (
        SELECT id AS found_id, left('out of bounds: ' || concat_ws('; ', {_REASON}), 2000) AS reason,
               CASE WHEN {_ARE_FAILURES_OUT} OR pg_column_size(failures || '[]') > 262144
                    THEN '[]' ELSE failures END AS so_far
          FROM outbox
         WHERE id = %(id)s AND ({_IS_OUT_OF_BOUNDS})
           FOR UPDATE
    )
    UPDATE outbox
       SET status = 'dead', claim_token = NULL, lease_until = NULL, broker_epoch = NULL, last_error = reason,
           failures = so_far || jsonb_build_object(
               'at', clock_timestamp(), 'attempt', least(attempt, 999999999), 'reason', reason,
               'maybe_accepted', status = 'running'),
           task = CASE WHEN octet_length(task) > 200 THEN left(task, 50) ELSE task END,
           traceparent = CASE WHEN octet_length(traceparent) <= 200 THEN traceparent END,
           generation = mod(generation, 1000000000), attempt = least(attempt, 999999999),
           max_retries = least(max_retries, 999999999),
           due_at = CASE WHEN {_IS_DUE_OUT} THEN now() ELSE due_at END,
           created_at = CASE WHEN {_is_out("created_at")} THEN now() ELSE created_at END,
           published_at = CASE WHEN {_is_out("published_at")} THEN NULL ELSE published_at END,
           claimed_at = CASE WHEN {_is_out("claimed_at")} THEN NULL ELSE claimed_at END
           NEW_ID
      FROM found
     WHERE id = found_id
"""  # noqa: S608 - expressions of our own


def upgrade() -> None:
    """Walk over the table."""
    with op.get_context().autocommit_block():
        bring_rows_into_bounds(op.get_bind())


def bring_rows_into_bounds(connection: Connection) -> None:
    """Walk over the table, in autocommit mode, until a walk finds no row that somebody holds."""
    before = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    connection.exec_driver_sql("SET statement_timeout = 0")
    try:
        _walk(connection)
    finally:
        connection.exec_driver_sql(f"SET statement_timeout = '{before}'")


def _walk(connection: Connection) -> None:
    for left in reversed(range(_WALKS)):
        locked = None
        for id_ in _out_of_bounds(connection):
            new_id = ", id = DEFAULT" if id_ < 1 else ""
            try:
                connection.exec_driver_sql(_BRING_INTO_BOUNDS.replace("NEW_ID", new_id), {"id": id_})
            except OperationalError as exc:  # no lock: the others first
                locked = exc
        if locked is None:
            return
        if not left:
            raise locked
        time.sleep(_PAUSE_SECONDS)


def _out_of_bounds(connection: Connection) -> Iterator[int]:
    after = -(2**63)
    while True:
        last, count, found = connection.exec_driver_sql(_FIND, {"after": after}).one()
        yield from found or ()
        if count < _READ_AT_ONCE:
            return
        after = last
