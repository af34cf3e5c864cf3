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


def pending_by_destination(database_url: str, count: int, destinations: int, blocked: int = 0) -> None:
    """Write pending messages for so many destinations into an empty outbox, and older ones of an unavailable one."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE outbox, outbox_destinations RESTART IDENTITY")
        connection.execute(
            """
            INSERT INTO outbox (task, queue, destination, payload, due_at)
            SELECT 'task:deliver_webhook', %(queue)s, 'unavailable', '{}'::jsonb, now() - interval '1 hour'
              FROM generate_series(1, %(blocked)s)
            UNION ALL
            SELECT 'task:deliver_webhook', %(queue)s, 'webhook:' || mod(n, %(destinations)s), '{}', now()
              FROM generate_series(1, %(count)s) AS n
            """,
            {"queue": SendVerifyEmail.queue, "blocked": blocked, "destinations": destinations, "count": count},
        )
        connection.execute(
            "INSERT INTO outbox_destinations (name, opened_at, probe_at) VALUES ('unavailable', now(), 'infinity')"
        )
        settle(connection)


def empty(servers: Servers, database_url: str) -> None:
    """Empty the tables and Redis."""
    servers.empty_redis()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE users, outbox, verification_mails, mail_counts CASCADE")
        connection.execute("CHECKPOINT")
