"""Defaults that an administrator may have set for a database, and that the service must not depend on."""

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
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "2s",
    "idle_session_timeout": "2s",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "jit": "on",
    "jit_above_cost": "0",
}
SHORT_TIMES = {
    "statement_timeout": "400ms",
    "idle_in_transaction_session_timeout": "400ms",
    "idle_session_timeout": "400ms",
}
_SINCE_17 = ("transaction_timeout",)


def set_foreign_settings(database_url: str, **others: str) -> None:
    """Return the database of the address settings that no program of ours would choose; new sessions have them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        settings = {**FOREIGN_SETTINGS, **others}
        if connection.info.server_version >= 170_000:
            settings |= dict.fromkeys(_SINCE_17, settings["statement_timeout"])
        for name, value in settings.items():
            _set(connection, name, value)


def _set(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    connection.execute(
        SQL("ALTER DATABASE {} SET {} = {}").format(
            Identifier(connection.info.dbname), Identifier(name), Literal(value)
        )
    )
