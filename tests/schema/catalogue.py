"""The schema of a database, as PostgreSQL's catalogue shows it."""

from typing import Any

from shared.database.connections import DbConnection, connect


def describe(connection: DbConnection) -> list[tuple[Any, ...]]:
    """Return everything that the schema is made of."""
    return connection.execute(
        """
        SELECT table_name, column_name, data_type, is_nullable,
               coalesce(column_default, 'identity: ' || identity_generation)
          FROM information_schema.columns
         WHERE table_schema = 'public'
        UNION ALL
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL
        SELECT viewname, 'definition', definition, '', '' FROM pg_views WHERE schemaname = 'public'
        UNION ALL
        SELECT relname, 'options', reloptions::text, '', '' FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
        UNION ALL
        SELECT '', proname, pg_get_functiondef(oid), '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT '', typname, format_type(typbasetype, typtypmod), '', '' FROM pg_type
         WHERE typnamespace = 'public'::regnamespace AND typtype = 'd'
        ORDER BY 1, 2, 3
        """
    ).fetchall()


def schema_of(database_url: str) -> list[tuple[Any, ...]]:
    """Return what the schema is made of, without the table of alembic."""
    with connect(database_url, "test") as connection:
        return [row for row in describe(connection) if "alembic" not in row[0]]
