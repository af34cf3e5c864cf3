"""Checks whether the database has the tables, constraints and indexes of schema.sql, exactly as they are there.

schema.sql is applied to temporary tables in a transaction that is rolled back, and the catalogue's description of both
is compared. The live tables are not locked.
"""

from pathlib import Path
from typing import Final

import psycopg

from outbox_relay.doctor.findings import Finding, fault, ok, skipped
from shared.database.connections import DbConnection, opening, transaction

SCHEMA_FILE: Final = Path(__file__).parents[2] / "schema.sql"
_FIX: Final = "run `alembic upgrade head` (of an empty database: schema.sql); what differs then has to be fixed by hand"
_SHOWN: Final = 4
_LOCK_SECONDS: Final = 10
_PLAIN_NAMES: Final = "SET LOCAL quote_all_identifiers = off"


def check_schema(connection: DbConnection) -> Finding:
    """Compare the database with schema.sql. Additional tables, columns and indexes are no fault."""
    if not SCHEMA_FILE.exists():
        return skipped("schema", "schema.sql is not in the project's root")
    try:
        expected = _expected(connection)
    except psycopg.errors.InsufficientPrivilege:
        return skipped("schema", "this role may not create temporary tables")
    except psycopg.errors.ReadOnlySqlTransaction:
        return skipped("schema", "a standby cannot create temporary tables")
    except psycopg.errors.LockNotAvailable:
        return skipped("schema", "another session is applying schema.sql")
    with transaction(connection):
        connection.execute(_PLAIN_NAMES)
        found = _describe(connection, "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())")
    missing = [what for what in expected if what not in found]
    different = [what for what, text in expected.items() if what in found and found[what] != text]
    if not missing and not different:
        return ok("schema", f"as in schema.sql, {len(expected)} parts compared")
    parts = [*(f"{what} is missing" for what in missing), *(f"{what} differs" for what in different)]
    more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return fault("schema", ", ".join(parts[:_SHOWN]) + more, _FIX)


def _expected(connection: DbConnection) -> dict[str, str]:
    statements = [line for line in SCHEMA_FILE.read_text().splitlines() if line not in {"BEGIN;", "COMMIT;"}]
    # A session that applies the file at this moment holds a lock.
    connection.execute(opening(connection, _LOCK_SECONDS))
    try:
        connection.execute(f"{_PLAIN_NAMES}; SET LOCAL search_path = pg_temp")
        connection.execute("\n".join(statements))
        return _describe(connection, "pg_my_temp_schema()")
    finally:
        connection.execute("ROLLBACK")


def _describe(connection: DbConnection, schema: str) -> dict[str, str]:
    """Return the definition of each part of our tables, without the name of its schema."""
    rows = connection.execute(
        rf"""
        WITH ours AS (
            SELECT c.oid, c.relname, c.relkind,
                   -- A schema's name as PostgreSQL writes it before a table's.
                   '(^|[^.[:alnum:]_"])' || regexp_replace(quote_ident(n.nspname), '([^[:alnum:]_"])', '\\\1', 'g')
                       || '\.' AS prefix
              FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.oid = {schema} AND c.relkind IN ('r', 'v')
        )
        SELECT what, regexp_replace(replace(definition, 'pg_temp.', ''), prefix, '\1', 'g') FROM (
            SELECT prefix, relkind, 1 AS rank,
                   (CASE relkind WHEN 'r' THEN 'table ' ELSE 'view ' END) || relname AS what, '' AS definition
              FROM ours
            UNION ALL
            SELECT prefix, relkind, 2, format('column %s.%s', relname, attname),
                   format_type(atttypid, atttypmod) || ' ' || attnotnull::text || ' ' || attidentity::text || ' '
                       || coalesce(pg_get_expr(adbin, adrelid), '')
              FROM ours JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
              LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            UNION ALL
            SELECT prefix, relkind, 3, format('constraint %s', conname), pg_get_constraintdef(pg_constraint.oid)
              FROM ours JOIN pg_constraint ON conrelid = ours.oid AND contype <> 'n'
            UNION ALL
            SELECT prefix, relkind, 4, format('index %s', indexrelid::regclass::name),
                   pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
              FROM ours JOIN pg_index ON indrelid = ours.oid
        ) AS parts
        ORDER BY relkind = 'v', rank, what  -- what others depend on comes first: few are shown
        """  # noqa: S608 - two expressions of our own
    ).fetchall()
    return dict(rows)
