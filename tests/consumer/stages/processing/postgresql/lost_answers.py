"""A connection to PostgreSQL that loses the answers to some commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from consumer.stages.database import Database, TaskConnection

LOST = psycopg.OperationalError("the answer was lost")


class LosesAnswers(Database):
    """PostgreSQL commits, but the answers for the transactions with these numbers are lost."""

    def __init__(self, database_url: str, *lost: int) -> None:
        super().__init__(database_url)
        self._lost = lost
        self._number = 0

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        self._number += 1
        with super().transaction(**limits) as connection:
            yield connection
        if self._number in self._lost:
            self.close()
            raise LOST
