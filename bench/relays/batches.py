"""The interface of a relay in the bench: it moves one batch and returns the number of rows."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """The input of a relay.

    Attributes:
        database_url: where the rows are.
        redis_url: where the jobs go.
        rows: how many rows there are to begin with.

    """

    database_url: str
    redis_url: str
    rows: int


MoveBatch = Callable[[], int]
"""Moves one batch and returns the number of its rows; 0 when nothing is left."""

BATCH = 1000
"""Rows in a batch, for all relays that have batches: our relay's default."""
