"""A connection to PostgreSQL whose statements fail within seconds, for requests and scrapes that must be answered."""

import time
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen

from shared.database.connections import conninfo

ANSWER_SECONDS: Final = 5.0
"""A statement without an answer by then fails, and its connection is closed."""

_Result = TypeVar("_Result")


class PromptConnection(psycopg.Connection[Any]):
    """A connection that fails if a connected server does not answer, as a frozen one.

    libpq has a timeout for connecting and none for a statement. PostgreSQL's own timeout needs a server that runs.
    """

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: PQGen[_Result], *args: Any, **kwargs: Any) -> _Result:  # noqa: ANN401 - as psycopg has them
        """Wait for an answer as psycopg does. Raises psycopg.OperationalError after answer_seconds."""
        return super().wait(self._limited(gen), *args, **kwargs)

    def _limited(self, gen: PQGen[_Result]) -> PQGen[_Result]:
        """Run psycopg's generator with a deadline. psycopg resumes it at least ten times a second."""
        deadline = time.monotonic() + self.answer_seconds
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and time.monotonic() > deadline:
                    # The statement's state is unknown, so the connection cannot be used again.
                    self.close()
                    raise psycopg.OperationalError(f"PostgreSQL did not answer within {self.answer_seconds:g} s")
                state = gen.send(ready)
        except StopIteration as end:
            result: _Result = end.value
            return result


def connect_promptly(database_url: str, application_name: str) -> PromptConnection:
    """Open a connection in autocommit mode that prepares no statement.

    The plan of a prepared statement is kept, and a plan for an empty outbox would read the whole table of a full one.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable.

    """
    connection = PromptConnection.connect(conninfo(database_url, application_name), autocommit=True)
    connection.prepare_threshold = None
    return connection
