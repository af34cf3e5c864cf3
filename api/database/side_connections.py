"""Connections outside the pool, for health, metrics and the console, so that a signup never waits for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from api.database.engine import DatabaseUnavailableError, SchemaMissingError
from shared.database.errors import SCHEMA_MISSING, TAKES_TOO_LONG, UNREACHABLE
from shared.database.prompt_connection import PromptConnection, connect_promptly
from shared.outage_causes import postgresql_cause

_APPLICATION: Final = "outbox-api"


class DatabaseSlowError(DatabaseUnavailableError):
    """PostgreSQL is reachable but did not answer in time."""

    def __init__(self, reason: str, *, was_asked: bool) -> None:
        self.was_asked = was_asked
        super().__init__(reason)


class GrantMissingError(DatabaseUnavailableError):
    """The API's role lacks a privilege."""


class SideConnections:
    """Connections for one purpose. Each is opened for one request, which shows that PostgreSQL accepts new ones."""

    def __init__(self, database_url: str, *, most: int, wait_seconds: float) -> None:
        """Create the pool of places; nothing is connected.

        Args:
            database_url: the database.
            most: how many requests may use a connection at the same time.
            wait_seconds: how long a further request waits.

        """
        self._database_url = database_url
        self._places = threading.BoundedSemaphore(most)
        self._wait_seconds = wait_seconds

    @contextmanager
    def borrow(self) -> Iterator[PromptConnection]:
        """Open a connection in autocommit mode.

        Raises:
            DatabaseSlowError: all places are in use, or a statement took too long and was cancelled.
            SchemaMissingError: a table, a column or a function is missing.
            GrantMissingError: the role lacks a privilege.
            DatabaseUnavailableError: PostgreSQL cannot be used.

        """
        if not self._places.acquire(timeout=self._wait_seconds):
            raise DatabaseSlowError("other requests of this kind are still waiting for PostgreSQL", was_asked=False)
        try:
            with connect_promptly(self._database_url, _APPLICATION) as connection:
                yield connection
        except TAKES_TOO_LONG as exc:
            raise DatabaseSlowError(postgresql_cause(exc, self._database_url), was_asked=True) from exc
        except SCHEMA_MISSING as exc:
            raise SchemaMissingError(postgresql_cause(exc, self._database_url)) from exc
        except psycopg.errors.InsufficientPrivilege as exc:
            raise GrantMissingError(postgresql_cause(exc, self._database_url)) from exc
        except UNREACHABLE as exc:
            raise DatabaseUnavailableError(postgresql_cause(exc, self._database_url)) from exc
        finally:
            self._places.release()
