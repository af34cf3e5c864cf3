"""The rows of a run: users, and the messages of their verification mails."""

from typing import Any

import psycopg

from bench.environment.servers import Servers
from shared.outbox.messages import SendVerifyEmail


def add_users(connection: psycopg.Connection[Any], count: int) -> None:
    """Write that many users, named after their numbers."""
    connection.execute(
        """
        INSERT INTO users (username, email, full_name, hashed_password)
        SELECT 'user' || n, 'user' || n || '@example.com', 'User Number ' || n, '!' FROM generate_series(1, %s) AS n
        """,
        [count],
    )


def add_messages(connection: psycopg.Connection[Any], count: int) -> None:
    """Write one pending message for each of that many users, as signups do."""
    connection.execute(
        """
        INSERT INTO outbox (task, queue, destination, payload)
        SELECT %s, %s, %s, jsonb_build_object('username', 'user' || n) FROM generate_series(1, %s) AS n
        """,
        [SendVerifyEmail.task, SendVerifyEmail.queue, SendVerifyEmail.destination, count],
    )


def settle(connection: psycopg.Connection[Any]) -> None:
    """VACUUM and ANALYZE the tables, so that PostgreSQL does not do it during a measurement."""
    connection.execute("VACUUM ANALYZE users, outbox, outbox_finished")
    connection.execute("CHECKPOINT")


def pending(database_url: str, count: int) -> None:
    """Write this many pending messages into an empty outbox, without users, which relays do not need."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE outbox RESTART IDENTITY")
        add_messages(connection, count)
        settle(connection)


def empty(servers: Servers, database_url: str) -> None:
    """Empty the tables and Redis."""
    servers.empty_redis()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE users, outbox, verification_mails, mail_counts CASCADE")
        connection.execute("CHECKPOINT")
