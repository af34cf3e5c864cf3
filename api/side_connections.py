"""Connections beside the pool: health, metrics and console have their own, so that a signup never waits for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from select import POLLIN, poll
from typing import Final

import psycopg

from api.database import DatabaseUnavailableError, SchemaMissingError
from shared.outage_causes import postgresql_cause
from shared.prompt_connection import PromptConnection, connect_promptly
from shared.read_transaction import SCHEMA_MISSING, TAKES_TOO_LONG

_APPLICATION: Final = "outbox-api"


class DatabaseSlowError(DatabaseUnavailableError):
    """PostgreSQL is there, and the answer takes longer than somebody waits for it."""

    def __init__(self, reason: str, *, was_asked: bool) -> None:
        """Keep whether PostgreSQL was asked at all."""
        self.was_asked = was_asked
        super().__init__(reason)


class GrantMissingError(DatabaseUnavailableError):
    """Our role may not do what it has to."""


class SideConnections:
    """A few connections of one purpose, each lent to one request at a time. Making this opens none."""

    def __init__(self, database_url: str, *, most: int, wait_seconds: float, keep: bool = False) -> None:
        """Keep how to connect.

        Args:
            database_url: where.
            most: how many requests may use one at the same time.
            wait_seconds: how long a further request waits.
            keep: whether a connection stays open for the next request.

        """
        self._database_url = database_url
        self._places = threading.BoundedSemaphore(most)
        self._wait_seconds = wait_seconds
        self._keep = keep
        self._kept: list[PromptConnection] = []

    @contextmanager
    def borrow(self) -> Iterator[PromptConnection]:
        """Lend a connection in autocommit mode.

        Raises:
            DatabaseSlowError: all are in use, or a statement was cancelled since it took too long.
            SchemaMissingError: a table, a column or a function is missing.
            GrantMissingError: our role may not do it.
            DatabaseUnavailableError: PostgreSQL cannot be used.

        """
        if not self._places.acquire(timeout=self._wait_seconds):
            raise DatabaseSlowError("other requests of this kind are still waiting for PostgreSQL", was_asked=False)
        try:
            connection = self._open()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._put_back(connection)
        except TAKES_TOO_LONG as exc:
            raise DatabaseSlowError(postgresql_cause(exc, self._database_url), was_asked=True) from exc
        except SCHEMA_MISSING as exc:
            raise SchemaMissingError(postgresql_cause(exc, self._database_url)) from exc
        except psycopg.errors.InsufficientPrivilege as exc:
            raise GrantMissingError(postgresql_cause(exc, self._database_url)) from exc
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as exc:
            raise DatabaseUnavailableError(postgresql_cause(exc, self._database_url)) from exc
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the connections that were kept."""
        while self._kept:
            self._kept.pop().close()

    def _open(self) -> PromptConnection:
        while self._kept:
            connection = self._kept.pop()
            if not _has_ended(connection):
                return connection
            connection.close()
        return connect_promptly(self._database_url, _APPLICATION)

    def _put_back(self, connection: PromptConnection) -> None:
        if self._keep and not connection.closed:
            self._kept.append(connection)
        else:
            connection.close()


def _has_ended(connection: PromptConnection) -> bool:
    """Return whether the connection is closed: a server hardly says anything to an idle client but that it leaves."""
    if connection.closed:
        return True
    look = poll()
    look.register(connection, POLLIN)
    return bool(look.poll(0))
