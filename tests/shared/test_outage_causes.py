"""What is said of a server that cannot be used: where it is and what it answered, and nothing of ours."""

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis
from redis.exceptions import RedisError

from embedded.programs.ports import free_port
from embedded.servers.redis import RedisServer
from shared.database.connections import DbConnection, connect
from shared.outage_causes import connection_cause, postgresql_cause, redis_cause
from tests.addresses import with_login

_LOGIN = "u:hunter2%2F%26"


def why_postgresql_fails(url: str) -> str:
    with pytest.raises(psycopg.OperationalError) as failed:
        connect(url, "test").close()
    return postgresql_cause(failed.value, url)


def why_redis_fails(url: str, use: Callable[[Redis], object] = Redis.ping) -> str:
    with closing(Redis.from_url(url, socket_timeout=3)) as client, pytest.raises(RedisError) as failed:
        use(client)
    return redis_cause(failed.value, url)


def set_in_a_pipeline(client: Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    pipeline.set("a", "alice")
    pipeline.execute()


def address_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def test_postgresql_nobody_listens() -> None:
    port = free_port()

    assert why_postgresql_fails(f"postgresql://{_LOGIN}@127.0.0.1:{port}/x") == (
        f"127.0.0.1:{port}: Connection refused"
    )


def test_postgresql_several_hosts_each_with_its_reason() -> None:
    port = free_port()

    assert why_postgresql_fails(f"postgresql://u@127.0.0.1:{port},127.0.0.2:{port}/x") == (
        f"127.0.0.1:{port}: Connection refused; 127.0.0.2:{port}: Connection refused"
    )


def test_postgresql_a_name_that_does_not_resolve() -> None:
    assert why_postgresql_fails("postgresql://u@nobody.invalid/x").startswith(
        "nobody.invalid:5432: failed to resolve host 'nobody.invalid'"
    )


def test_postgresql_a_database_that_is_not_there(database_url: str) -> None:
    url = urlsplit(database_url)._replace(path="/nothing_here").geturl()

    assert why_postgresql_fails(url) == f'{address_of(url)}: FATAL: database "nothing_here" does not exist'


def test_postgresql_a_login_that_is_refused(database_url: str) -> None:
    url = with_login(database_url, _LOGIN)

    assert why_postgresql_fails(url) == f'{address_of(url)}: FATAL: password authentication failed for user "u"'


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("SELECT * FROM nothing", 'relation "nothing" does not exist (42P01)'),
        ("SELECT 'alice@example.com'::integer", "InvalidTextRepresentation (22P02)"),
        ("INSERT INTO users VALUES ('', 'alice@example.com', 'Alice', 'x')", "CheckViolation (23514)"),
        ("DO $$ BEGIN RAISE EXCEPTION 'alice@example.com'; END $$", "RaiseException (P0001)"),
        ("SELECT 1 alice@example.com", "SyntaxError (42601)"),
    ],
)
def test_postgresql_quotes_only_errors_that_hold_no_value(
    connection: DbConnection, database_url: str, statement: str, cause: str
) -> None:
    with pytest.raises(psycopg.Error) as failed:
        connection.execute(statement.encode())

    assert postgresql_cause(failed.value, database_url) == f"{address_of(database_url)}: {cause}"


def test_postgresql_a_missing_grant(connection: DbConnection, database_url: str) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    connection.execute(f"CREATE ROLE {role}".encode())
    try:
        connection.execute(f"SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as failed:
            connection.execute("SELECT FROM outbox")
        assert postgresql_cause(failed.value, database_url).endswith(": permission denied for table outbox (42501)")
    finally:
        connection.execute("RESET ROLE")
        connection.execute(f"DROP ROLE {role}".encode())


def test_postgresql_a_connection_that_was_ended(connection: DbConnection, database_url: str) -> None:
    with connect(database_url, "test") as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])

    with pytest.raises(psycopg.OperationalError) as failed:
        connection.execute("SELECT 1")

    assert postgresql_cause(failed.value, database_url) == (
        f"{address_of(database_url)}: terminating connection due to administrator command (57P01)"
    )


def test_redis_nobody_listens() -> None:
    port = free_port()

    assert why_redis_fails(f"redis://{_LOGIN}@127.0.0.1:{port}/0") == f"127.0.0.1:{port}: Connection refused."


def test_redis_a_name_that_does_not_resolve() -> None:
    assert why_redis_fails("redis://nobody.invalid") == "nobody.invalid:6379: Name or service not known."


def test_redis_a_login_that_is_missing_wrong_or_not_enough(own_redis: RedisServer) -> None:
    where = address_of(own_redis.url)
    with own_redis.client() as client:
        client.acl_setuser("relay", enabled=True, passwords=["+right"], commands=["+ping"])
        client.config_set("requirepass", "secret")

        assert why_redis_fails(f"redis://{where}/0").startswith(f"{where}: NOAUTH ")
        assert why_redis_fails(f"redis://{_LOGIN}@{where}/0") == (
            f"{where}: WRONGPASS invalid username-password pair or user is disabled."
        )
        not_allowed = why_redis_fails(f"redis://relay:right@{where}/0", lambda it: it.get("key-of-alice"))
        assert (not_allowed.startswith(f"{where}: NOPERM "), "alice" in not_allowed) == (True, False), not_allowed
        in_a_pipeline = why_redis_fails(f"redis://relay:right@{where}/0", set_in_a_pipeline)
        assert (in_a_pipeline.startswith(f"{where}: NOPERM "), "alice" in in_a_pipeline) == (True, False), in_a_pipeline
        client.config_set("requirepass", "")


def test_redis_arguments_that_it_repeats_are_not(own_redis: RedisServer) -> None:
    cause = why_redis_fails(own_redis.url, lambda it: it.execute_command("NOSUCH", "alice@example.com"))

    # Redis 7 quotes in another way than Redis 6.
    assert cause.replace("'", "`") == f"{address_of(own_redis.url)}: unknown command `NOSUCH`"


def test_redis_in_protected_mode() -> None:
    said = b"-DENIED Redis is running in protected mode because protected mode is enabled.\r\n"
    with answering(said) as port:
        assert why_redis_fails(f"redis://127.0.0.1:{port}/0").startswith(
            f"127.0.0.1:{port}: DENIED Redis is running in protected mode"
        )


def test_redis_without_tls_spoken_to_over_tls() -> None:
    with answering(b"-ERR unknown command\r\n") as port:
        cause = why_redis_fails(f"rediss://127.0.0.1:{port}/0")

    assert cause.startswith(f"127.0.0.1:{port}: [SSL: "), cause


def test_no_secret_where_an_address_is_malformed() -> None:
    error = psycopg.OperationalError("failed to resolve host 'hunter2@db'")

    assert "hunter2" not in postgresql_cause(error, "postgresql://u:hunter2@db/x")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "mail:25: Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "mail:25: Name or service not known"),
        (TimeoutError("timed out"), "mail:25: no answer in time"),
        (UnicodeError("label empty or too long"), "mail:25: UnicodeError"),
    ],
)
def test_a_plain_socket(error: Exception, cause: str) -> None:
    assert connection_cause(error, "mail", 25) == cause


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Listen, and answer each of a few connections with the same words."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(reply)
                    peer.recv(4096)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
