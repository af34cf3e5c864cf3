"""A transaction of shared/database/connections.py leaves its connection usable, wherever it fails."""

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from shared.database.connections import connect, transaction

REFUSED = -1.0
"""PostgreSQL refuses such a lock_timeout, after BEGIN."""


def test_one_that_cannot_be_opened_is_rolled_back(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        with pytest.raises(psycopg.errors.InvalidParameterValue), transaction(connection, lock_seconds=REFUSED):
            pytest.fail("it was opened")

        assert connection.info.transaction_status == TransactionStatus.IDLE
