"""Settings that an administrator may have given a database, for reasons of his own, and that we must not depend on."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

FOREIGN_SETTINGS = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "extra_float_digits": "-10",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "400ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "400ms",
    "idle_session_timeout": "400ms",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "jit": "on",
    "jit_above_cost": "0",
}
_SINCE_17 = {"transaction_timeout": "400ms"}


def set_foreign_settings(database_url: str, **others: str) -> None:
    """Give the database of the address settings that no program of ours would choose; new sessions have them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        newer = _SINCE_17 if connection.info.server_version >= 170_000 else {}
        for name, value in {**FOREIGN_SETTINGS, **newer, **others}.items():
            _set(connection, name, value)


def _set(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    connection.execute(
        SQL("ALTER DATABASE {} SET {} = {}").format(
            Identifier(connection.info.dbname), Identifier(name), Literal(value)
        )
    )
