"""Count what statements read, as PostgreSQL counts it while it runs them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

_TABLES: Final = frozenset({"outbox", "outbox_finished"})


@dataclass(frozen=True)
class Scan:
    """One scan of a table of messages.

    Attributes:
        statement: the beginning of the statement.
        kind: such as Index Scan.
        table: which one.
        rows: how many rows it looked at, those that it did not want included.

    """

    statement: str
    kind: str
    table: str
    rows: float


class ExplainingConnection(psycopg.Connection[Any]):
    """Runs each reading statement a second time under EXPLAIN ANALYZE, and keeps what it read."""

    scans: list[Scan]

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> psycopg.Cursor[Any]:
        """Run it, explained first where it reads."""
        text = query.decode() if isinstance(query, bytes) else query
        if isinstance(text, str) and text.split()[0] in {"SELECT", "WITH"}:
            [(plans,)] = super().execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {text}", params).fetchall()
            root = (json.loads(plans) if isinstance(plans, str) else plans)[0]["Plan"]
            self.scans += [Scan(" ".join(text.split())[:80], *found) for found in _scans(root)]
        return super().execute(query, params, **kwargs)


@contextmanager
def explaining(database_url: str) -> Iterator[ExplainingConnection]:
    """Open such a connection, in autocommit mode."""
    with ExplainingConnection.connect(database_url, autocommit=True, options="-c datestyle=ISO") as connection:
        connection.prepare_threshold = None  # as connect_promptly: each transaction states its settings
        connection.scans = []
        yield connection


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    if node.get("Relation Name") in _TABLES:
        removed = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
        yield node["Node Type"], node["Relation Name"], (node["Actual Rows"] + removed) * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _scans(child)
