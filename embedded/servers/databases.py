"""Create, find and drop databases on a server that is already running."""

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg
from psycopg import sql

from embedded.errors import EmbeddedError

# Without the caller's PGHOST, PGOPTIONS and similar variables.
_PSQL_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"}


class Databases(ABC):
    """Creates, fills and drops databases."""

    @property
    @abstractmethod
    def psql_path(self) -> Path:
        """The path of the psql that applies schemas."""

    @abstractmethod
    def url(self, dbname: str = "postgres") -> str:
        """Return the URL of a database."""

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, optionally as a copy of one without connections, and return its URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return self.url(name)

    def has_database(self, name: str) -> bool:
        """Return whether there is a database with that name."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            return found.rowcount > 0

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, with the connections to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def apply_schema(self, dbname: str, file: Path) -> None:
        """Run an SQL file with psql, as the documentation does. Raises EmbeddedError with psql's error."""
        done = subprocess.run(
            [self.psql_path, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-f", file, "-d", self.url(dbname)],
            env=_PSQL_ENVIRONMENT,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{file} could not be applied:\n{done.stderr}")

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)
