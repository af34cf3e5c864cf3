"""Real statements without one of their clauses."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql_against_model.moment import Connection


class Unguarded:
    """A connection on which one clause of a statement is another."""

    def __init__(self, connection: Connection, clause: str, instead: str) -> None:
        self.connection = connection
        self.clause = clause
        self.instead = instead

    def execute(self, query: str, parameters: Any = None) -> Any:
        assert self.clause in query
        return self.connection.execute(query.replace(self.clause, self.instead).encode(), parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def leave_out(monkeypatch: pytest.MonkeyPatch, statement: Callable[..., Any], clause: str, instead: str) -> None:
    def unguarded(connection: Connection, *args: Any, **kwargs: Any) -> Any:
        return statement(Unguarded(connection, clause, instead), *args, **kwargs)

    monkeypatch.setattr(sys.modules[statement.__module__], statement.__name__, unguarded)
