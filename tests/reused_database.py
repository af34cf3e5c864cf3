"""One database that many tests use in turn: each finds it as if it were new, in a fraction of the time.

What a test wrote is truncated. After a test that changed anything else (the schema, a grant, a setting of the database,
the planner's statistics), the next one gets a new copy of the template.
"""

import secrets
from typing import Any, Final

import psycopg
from psycopg import Connection

from embedded.servers.databases import Databases
from tests.waiting import wait_until

APPLICATION_NAME: Final = "tests"
"""What the connection calls itself that stays open beside those of the tests."""

# A table that nothing was ever written to has an empty file. What was rolled back counts too.
_WRITTEN: Final = """
SELECT ARRAY(SELECT oid::regclass::text FROM pg_class
              WHERE oid >= 16384 AND relkind = 'r' AND pg_relation_size(oid) > 0),
       ARRAY(SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences WHERE last_value IS NOT NULL)
"""

# xmin is the transaction that wrote a row. TRUNCATE writes rows of pg_class, so that its columns are compared instead,
# except for the sizes of indexes. A default (pg_attrdef) changes its column's row of pg_attribute, too. Objects below
# 16384 are PostgreSQL's own.
_NOT_ROWS: Final = """
SELECT ARRAY(
    SELECT ROW(oid, relname, relnamespace, relowner, relkind, relnatts, relchecks, relhasindex, relhasrules,
               relhastriggers, relreplident, relrowsecurity, reloptions, relacl,
               CASE WHEN relkind <> 'i' THEN (relpages, reltuples) END)::text
      FROM pg_class WHERE oid >= 16384 ORDER BY oid
), (
    SELECT ROW(datdba, datacl, datconnlimit)::text FROM pg_database WHERE datname = current_database()
), (
    SELECT count(*) FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase
     WHERE datname = current_database()
), ARRAY(
    SELECT ROW(count(*), sum(number::text::bigint))::text
      FROM (SELECT 1 AS catalogue, xmin AS number FROM pg_attribute WHERE attrelid >= 16384
            UNION ALL SELECT 2, xmin FROM pg_constraint WHERE oid >= 16384
            UNION ALL SELECT 3, xmin FROM pg_type WHERE oid >= 16384
            UNION ALL SELECT 4, xmin FROM pg_proc WHERE oid >= 16384
            UNION ALL SELECT 5, xmin FROM pg_trigger
            UNION ALL SELECT 6, xmin FROM pg_index WHERE indexrelid >= 16384
            UNION ALL SELECT 7, xmin FROM pg_rewrite WHERE oid >= 16384
            UNION ALL SELECT 8, xmin FROM pg_sequence
            UNION ALL SELECT 9, xmin FROM pg_namespace WHERE nspname !~ '^pg_'
            UNION ALL SELECT 10, xmin FROM pg_statistic WHERE starelid >= 16384
            UNION ALL SELECT 11, xmin FROM pg_extension
            UNION ALL SELECT 12, xmin FROM pg_default_acl) AS written
     GROUP BY catalogue ORDER BY catalogue
)
"""

# An autovacuum among them.
_END_OTHERS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class ReusedDatabase:
    """A database with the schema, for one test at a time."""

    def __init__(self, databases: Databases, template: str) -> None:
        self._databases = databases
        self._template = template
        self._name: str | None = None
        self._connection: Connection[Any] | None = None
        self._not_rows: list[Any] = []

    def give(self) -> str:
        """Return the address of the database, which is as new."""
        if self._name is None or not self._is_as_new():
            self.drop()
            self._create()
        assert self._name is not None
        return self._databases.url(self._name)

    def take_back(self) -> None:
        """End the connections that a test has left, as dropping its database would."""
        try:
            wait_until(lambda: self._rows(_END_OTHERS) == [], 10, "the connections of a test to end")
        except psycopg.Error:
            self.drop()  # the test has ended this connection too

    def drop(self) -> None:
        """Drop the database, if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._name is not None:
            self._databases.drop_database(self._name)
        self._name = self._connection = None

    def _create(self) -> None:
        self._name = f"outbox_test_{secrets.token_hex(8)}"
        url = self._databases.create_database(self._name, template=self._template)
        self._connection = psycopg.connect(url, autocommit=True, application_name=APPLICATION_NAME)
        self._not_rows = self._rows(_NOT_ROWS)

    def _is_as_new(self) -> bool:
        """Take away what was written; return whether nothing else was changed."""
        try:
            self._empty()
            as_new = self._rows(_NOT_ROWS) == self._not_rows
            # Forget what was counted, by this connection too.
            self._rows("SELECT pg_stat_force_next_flush()")
            self._rows("SELECT pg_stat_reset()")
        except psycopg.Error:
            return False
        return as_new

    def _empty(self) -> None:
        [(tables, sequences)] = self._rows(_WRITTEN)
        statements = [f"SELECT setval('{sequence}', 1, false)" for sequence in sequences]
        if tables:
            # CASCADE: links refer to accounts.
            statements.insert(0, f"TRUNCATE {', '.join(tables)} CASCADE")
        if statements:
            self._rows("; ".join(statements))

    def _rows(self, statement: str) -> list[Any]:
        assert self._connection is not None
        cursor = self._connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
