"""A connection to PostgreSQL that gives up within seconds, for those who have an answer to give to somebody."""

import time
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen

from shared.database.connections import conninfo

ANSWER_SECONDS: Final = 5.0
"""A statement that PostgreSQL has not answered by then is given up, with its connection."""

_Result = TypeVar("_Result")


class PromptConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server which is connected and silent, as a frozen one is.

    libpq has a timeout for connecting and none for a statement, and PostgreSQL's own needs a server that runs.
    """

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: PQGen[_Result], *args: Any, **kwargs: Any) -> _Result:  # noqa: ANN401 - as psycopg has them
        """Wait for an answer as psycopg does. Raises psycopg.OperationalError after answer_seconds."""
        return super().wait(self._limited(gen), *args, **kwargs)

    def _limited(self, gen: PQGen[_Result]) -> PQGen[_Result]:
        """Pass on what psycopg's generator waits for; psycopg resumes it ten times a second if nothing happens."""
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
    """Open a connection in autocommit mode for questions that are asked now and then: each is planned again.

    The plan of a prepared statement is kept, and one that was made for an empty outbox would read all of a full one.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable.

    """
    connection = PromptConnection.connect(conninfo(database_url, application_name), autocommit=True)
    connection.prepare_threshold = None
    return connection
