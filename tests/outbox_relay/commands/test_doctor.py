"""`doctor` on a healthy installation, and with one fault planted at a time."""

import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import time_machine
from redis import Redis
from rq.suspension import suspend

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import free_port
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from outbox_relay.doctor.findings import Severity
from outbox_relay.doctor.postgresql_checks import check_jit, check_server, check_snapshots, check_vacuum
from outbox_relay.loop.heartbeat import write_heartbeat
from shared.database.connections import connect
from tests.addresses import with_login, with_parameter
from tests.conftest import SCHEMA, StartPostgres
from tests.outbox_relay.commands.running import run, run_json
from tests.programs.processes import worker_settings
from tests.redis_keys import KEYS
from tests.reused_database import ReusedDatabase
from tests.rows import add_message
from tests.servers.roles import limited_role, with_role

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def durable_postgres(server_folder: Path, start_postgres: StartPostgres) -> Iterator[PostgresServer]:
    """A server that keeps what it acknowledges: the session's has fsync off, which is a fault."""
    server = start_postgres(server_folder / "durable", fsync="on")
    yield server
    server.remove()


@pytest.fixture(scope="module")
def durable_database(durable_postgres: PostgresServer) -> Iterator[ReusedDatabase]:
    """Its database; faults that are planted in the schema use it up."""
    durable_postgres.create_database("template")
    durable_postgres.apply_schema("template", SCHEMA)
    database = ReusedDatabase(durable_postgres, "template")
    yield database
    database.drop()


@dataclass
class Installation:
    """A service in good health, until a test plants a fault."""

    connection: Connection
    redis: Redis
    monkeypatch: pytest.MonkeyPatch

    def sql(self, statement: str) -> None:
        self.connection.execute(statement)

    def set(self, name: str, value: str) -> None:
        self.monkeypatch.setenv(name, value)


@pytest.fixture
def healthy(
    durable_database: ReusedDatabase, own_redis: RedisServer, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    url = durable_database.give()
    for variable, value in worker_settings(url, own_redis.url, mailbox.smtp_url).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TRUSTED_PROXIES", "1")
    with connect(url, "test") as connection, closing(own_redis.client()) as client:
        write_heartbeat(connection, "here/1")
        show_worker(client)
        yield Installation(connection, client, monkeypatch)
    durable_database.take_back()


def show_worker(client: Redis) -> None:
    """Do what a worker does to be seen."""
    key = KEYS.worker("one")
    client.hset(key, "last_heartbeat", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    for queue in ("critical", "default"):
        client.sadd(KEYS.workers_of(queue), key)


def faults() -> dict[str, str]:
    """Run `doctor` as a program does, and give what is at fault; the exit code has to agree."""
    ended = run("doctor", "--json")
    found = {each["check"]: each["message"] for each in run_json("doctor") if each["severity"] == "fault"}
    assert ended.exit_code == (1 if found else 0), ended.output
    return found


def warnings() -> list[str]:
    """Run `doctor` where nothing is at fault, and give what it warns of."""
    found = run_json("doctor")
    assert [each for each in found if each["severity"] == "fault"] == []
    return [each["message"] for each in found if each["severity"] == "warning"]


def test_a_healthy_installation_has_no_fault(healthy: Installation) -> None:
    ended = run("doctor")

    assert (ended.exit_code, {line.split()[0] for line in ended.output.splitlines()}) == (0, {"ok"}), ended.output


def a_missing_index(at: Installation) -> None:
    at.sql("DROP INDEX outbox_pending_idx")


def a_missing_column(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP COLUMN last_error CASCADE")


def a_changed_constraint(at: Installation) -> None:
    at.sql("ALTER TABLE outbox_finished DROP CONSTRAINT outbox_finished_status")
    at.sql("ALTER TABLE outbox_finished ADD CONSTRAINT outbox_finished_status CHECK (status <> '')")


def a_missing_rule(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_known")


def a_rule_that_no_row_was_held_against(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_known")
    at.sql("ALTER TABLE outbox ADD CONSTRAINT outbox_queue_known CHECK (queue IN ('critical', 'default')) NOT VALID")


def no_schema(at: Installation) -> None:
    at.sql("DROP TABLE outbox CASCADE")


def commits_that_are_not_on_disk(at: Installation) -> None:
    at.sql(f"ALTER DATABASE {at.connection.info.dbname} SET synchronous_commit = off")


def no_autovacuum(at: Installation) -> None:
    at.sql("ALTER TABLE outbox SET (autovacuum_enabled = false)")


def postgresql_away(at: Installation) -> None:
    at.set("DATABASE_URL", f"postgresql://postgres@127.0.0.1:{free_port()}/outbox")


def no_such_database(at: Installation) -> None:
    at.set("DATABASE_URL", urlsplit(os.environ["DATABASE_URL"])._replace(path="/nothing_here").geturl())


def a_name_that_does_not_resolve(at: Installation) -> None:
    at.set("DATABASE_URL", "postgresql://nobody.invalid/outbox")


def no_grant(at: Installation) -> None:
    at.sql("CREATE ROLE without_grants LOGIN")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], "without_grants"))


def schema_of(at: Installation) -> str:
    row = at.connection.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


def no_usage_of_the_schema(at: Installation) -> None:
    schema = schema_of(at)
    role = f"without_usage_{secrets.token_hex(4)}"
    at.sql(f"CREATE ROLE {role} LOGIN")
    at.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    at.sql(f"REVOKE USAGE ON SCHEMA {schema} FROM public")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], role))


def a_redis_that_lets_us_do_nothing(at: Installation) -> None:
    at.redis.acl_setuser("relay", enabled=True, passwords=["+hunter2"], commands=["+ping"])
    at.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "relay:hunter2"))


def a_postgresql_that_takes_no_writes(at: Installation) -> None:
    a_relay_that_fell_silent(at)
    at.sql(f"ALTER DATABASE {at.connection.info.dbname} SET default_transaction_read_only = on")


def a_role_without_a_grant(at: Installation) -> None:
    role = f"relay_{secrets.token_hex(4)}"
    at.sql(f"CREATE ROLE {role} LOGIN")
    at.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_of(at)} TO {role}")
    at.sql(f"REVOKE UPDATE, DELETE ON outbox_finished FROM {role}")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], role))


def redis_away(at: Installation) -> None:
    at.set("RQ_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")


def a_redis_that_evicts(at: Installation) -> None:
    at.redis.config_set("maxmemory-policy", "allkeys-lru")


def a_redis_that_is_a_replica(at: Installation) -> None:
    at.redis.replicaof("127.0.0.1", free_port())


def no_worker_for_default(at: Installation) -> None:
    at.redis.delete(KEYS.workers_of("default"))


def suspended_workers(at: Installation) -> None:
    suspend(at.redis)


def workers_suspended_for_a_while(at: Installation) -> None:
    suspend(at.redis, 600)


def a_queue_that_is_no_list(at: Installation) -> None:
    at.redis.set(KEYS.queue("critical"), "somebody else's")


def mail_server_away(at: Installation) -> None:
    at.set("SMTP_URL", f"smtp://127.0.0.1:{free_port()}")


def an_open_breaker(at: Installation) -> None:
    at.sql("UPDATE outbox_breaker SET opened_at = now(), probe_at = now(), last_error = '421 busy'")


def a_relay_that_fell_silent(at: Installation) -> None:
    at.sql("UPDATE outbox_relays SET seen_at = now() - interval '5 minutes'")


def a_short_secret(at: Installation) -> None:
    at.set("SECRET_KEY", "too short")


def a_short_token(at: Installation) -> None:
    at.set("OPS_TOKEN", "too short")


def a_number_of_processes_that_is_none(at: Installation) -> None:
    at.set("WEB_CONCURRENCY", "two")


def a_mail_server_whose_name_is_none(at: Installation) -> None:
    at.set("SMTP_URL", "smtp://mail..example.com:25")


def a_timeout_beyond_the_lease(at: Installation) -> None:
    at.set("SMTP_TIMEOUT_SECONDS", "50")


def a_lease_shorter_than_a_pop(at: Installation) -> None:
    at.set("OUTBOX_PUBLISH_LEASE_SECONDS", "2")


def a_message_that_nobody_publishes(at: Installation) -> None:
    add_message(at.connection, due_at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("plant", "check", "cause"),
    [
        (a_missing_index, "schema", "index outbox_pending_idx is missing"),
        (a_missing_column, "schema", "column outbox.last_error is missing"),
        (a_changed_constraint, "schema", "constraint outbox_finished_status differs"),
        (a_missing_rule, "schema", "constraint outbox_queue_known is missing"),
        (a_rule_that_no_row_was_held_against, "schema", "constraint outbox_queue_known differs"),
        (no_schema, "schema", "table outbox is missing"),
        (commits_that_are_not_on_disk, "postgresql settings", "synchronous_commit is off"),
        (no_autovacuum, "vacuum", "autovacuum is switched off"),
        (postgresql_away, "postgresql", ": Connection refused"),
        (no_such_database, "postgresql", 'FATAL: database "nothing_here" does not exist'),
        (a_name_that_does_not_resolve, "postgresql", "failed to resolve host 'nobody.invalid'"),
        (no_grant, "grants", "permission denied for table"),
        (no_usage_of_the_schema, "grants", "this role lacks USAGE on the schema"),
        (a_postgresql_that_takes_no_writes, "postgresql", "default_transaction_read_only is on"),
        (a_role_without_a_grant, "grants", "this role lacks UPDATE and DELETE on outbox_finished"),
        (redis_away, "redis", ": Connection refused"),
        (a_redis_that_lets_us_do_nothing, "redis", "NOPERM"),
        (a_redis_that_evicts, "redis eviction", "allkeys-lru"),
        (a_redis_that_is_a_replica, "redis", "replica"),
        (no_worker_for_default, "workers", "no worker is alive for default"),
        (suspended_workers, "workers", "they are suspended until they are resumed"),
        (workers_suspended_for_a_while, "workers", "they are suspended for"),
        (a_queue_that_is_no_list, "redis keys", "queue:critical is a string and has to be a list"),
        (mail_server_away, "mail server", ": Connection refused"),
        (an_open_breaker, "breaker", "421 busy"),
        (a_relay_that_fell_silent, "relay", "none is alive, the last was seen"),
        (a_short_secret, "settings", "SECRET_KEY needs at least 32 printable characters"),
        (a_short_token, "settings", "OPS_TOKEN needs at least 32 printable characters"),
        (a_number_of_processes_that_is_none, "settings", "WEB_CONCURRENCY has to be a whole number from 1 to 1000"),
        (a_mail_server_whose_name_is_none, "mail server", "it cannot be used: mail..example.com:25: UnicodeError"),
        (a_timeout_beyond_the_lease, "settings", "SMTP_TIMEOUT_SECONDS must not be longer"),
        (a_lease_shorter_than_a_pop, "leases", "OUTBOX_PUBLISH_LEASE_SECONDS is 2"),
        (a_message_that_nobody_publishes, "waiting", "a due message has been waiting"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_named_with_its_cause(healthy: Installation, plant: Any, check: str, cause: str) -> None:
    plant(healthy)

    found = faults()

    assert (next(iter(found)), cause in found[check]) == (check, True), found


def test_what_follows_from_a_schema_without_usage_is_no_fault_of_its_own(healthy: Installation) -> None:
    no_usage_of_the_schema(healthy)

    assert list(faults()) == ["grants"]


def test_a_mail_server_that_refuses_everybody_is_not_called_unreachable(healthy: Installation) -> None:
    an_open_breaker(healthy)
    healthy.sql("UPDATE outbox_breaker SET policy_code = '5.7.1'")

    assert "it refuses our mail" in " ".join(run("doctor").output.split())


def test_what_keeps_the_relays_from_working_is_named_before_them(healthy: Installation) -> None:
    a_relay_that_fell_silent(healthy)
    redis_away(healthy)

    assert list(faults()) == ["redis", "relay"]


@pytest.mark.parametrize("value", [b"\xff", b"x" * 40_000, b"", None])
def test_a_marker_that_is_none_is_named(healthy: Installation, value: bytes | None) -> None:
    key = KEYS.epoch_marker
    if value is None:
        healthy.redis.rpush(key, "somebody else's")
    else:
        healthy.redis.set(key, value)

    assert any("is not a relay's marker" in message for message in warnings())


def test_a_proxy_whose_headers_are_not_believed_is_named(healthy: Installation) -> None:
    healthy.set("BASE_URL", "https://bank.example")
    believed = warnings()
    healthy.set("TRUSTED_PROXIES", "0")

    assert believed == []
    assert any("TRUSTED_PROXIES is 0" in message for message in warnings())


def test_a_forwarding_header_that_nothing_believes_is_named(healthy: Installation) -> None:
    healthy.sql("INSERT INTO ignored_headers VALUES ('Forwarded', now() - interval '2 hours')")
    long_ago = warnings()
    healthy.sql("INSERT INTO ignored_headers VALUES ('X-Forwarded-For', now())")

    assert long_ago == []
    assert any(message.startswith("X-Forwarded-For came with a request") for message in warnings())


def test_a_redis_user_that_may_not_look_at_keys_is_told_so(healthy: Installation) -> None:
    healthy.redis.execute_command("ACL", "SETUSER", "relay", "on", ">secret", "~*", "+@all", "-type")
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "relay:secret"))

    assert any("cannot be read" in message and "NOPERM" in message for message in warnings())


def test_a_standby_is_named_and_no_relay_is_blamed(healthy: Installation, own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    healthy.set("DATABASE_URL", own_postgres.url("outbox"))

    found = faults()

    assert (next(iter(found)), "relay" in found) == ("postgresql", False)
    assert "this is a standby" in found["postgresql"]


def test_a_clock_that_went_wrong_is_named(healthy: Installation) -> None:
    with time_machine.travel(datetime.now(UTC).timestamp() + 120):
        found = faults()

    assert list(found) == ["clocks"]
    assert "behind this machine's" in found["clocks"]


def test_a_transaction_that_stays_open_is_named(healthy: Installation, durable_postgres: PostgresServer) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with connect(url, "forgotten-shell") as forgotten, forgotten.transaction():
        forgotten.execute("SELECT pg_current_xact_id()")

        ended = run("doctor", "--longest-transaction", 0)

    assert (ended.exit_code, "forgotten-shell" in ended.output) == (1, True), ended.output


def test_a_transaction_whose_age_is_hidden_from_this_role_is_not_called_absent(
    healthy: Installation, durable_postgres: PostgresServer
) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with (
        limited_role(healthy.connection, {}) as role,
        connect(with_role(url, role), "doctor") as limited,
        connect(url, "forgotten-shell") as forgotten,
    ):
        with forgotten.transaction():
            forgotten.execute("SELECT pg_current_xact_id()")
            hidden = check_snapshots(limited, 0)
            healthy.sql(f"GRANT pg_read_all_stats TO {role}")
            seen = check_snapshots(limited, 0)
            healthy.sql(f"REVOKE pg_read_all_stats FROM {role}")
        none = check_snapshots(limited, 0)

    assert (hidden.severity, "pg_read_all_stats" in hidden.message) == (Severity.SKIPPED, True)
    assert (seen.severity, "forgotten-shell" in seen.message) == (Severity.FAULT, True)
    assert (none.severity, none.message) == (Severity.OK, "none is open")


def test_connections_of_other_roles_are_counted(healthy: Installation, durable_postgres: PostgresServer) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with (
        limited_role(healthy.connection, {}) as role,
        connect(with_role(url, role), "doctor") as limited,
        connect(url, "another"),
    ):
        [message] = [each.message for each in check_server(limited) if each.check == "connections"]

    assert int(message.split()[0]) >= 3, message  # the test's, the limited one, and another


def test_jit_is_off_in_our_sessions_and_named_where_it_is_not(database_url: str) -> None:
    with connect(database_url, "test") as ours, psycopg.connect(database_url, autocommit=True) as theirs:
        theirs.execute("SET jit = on")

        assert (check_jit(ours).severity, check_jit(theirs).severity) == (Severity.OK, Severity.WARNING)


def test_dead_rows_that_pile_up_are_named(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO outbox (task, payload) SELECT 't', '{}' FROM generate_series(1, 500)")
        connection.execute("DELETE FROM outbox")
    connection.execute("SELECT pg_stat_force_next_flush()")

    few, many = check_vacuum(connection, dead_rows=100_000), check_vacuum(connection, dead_rows=100)

    assert (few.severity, many.severity) == (Severity.OK, Severity.FAULT)


def test_what_is_not_set_is_not_called_a_fault(healthy: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "MAIL_FROM", "SMTP_URL"):
        monkeypatch.delenv(name)

    ended = run("doctor")

    assert (ended.exit_code, ended.output.count("skipped")) == (0, 2), ended.output


def test_without_a_database_address_it_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    ended = run("doctor")

    assert (ended.exit_code, "DATABASE_URL" in ended.output) == (2, True)


def test_no_password_is_shown(healthy: Installation) -> None:
    healthy.set("DATABASE_URL", f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x")
    healthy.set("RQ_REDIS_URL", f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    healthy.set("SMTP_URL", f"smtp://u:hunter2@127.0.0.1:{free_port()}")

    assert "hunter2" not in run("doctor").output


def test_what_others_wrote_where_workers_show_themselves_is_no_obstacle(healthy: Installation) -> None:
    names = KEYS.workers
    healthy.redis.sadd(f"{names}:critical", b"\xff", f"{names}:critical", KEYS.worker("two"))
    healthy.redis.hset(KEYS.worker("two"), "last_heartbeat", "2020-01-01")
    healthy.redis.delete(f"{names}:default")
    healthy.redis.set(f"{names}:default", "x")

    found = {(each["check"], each["severity"]) for each in run_json("doctor")}

    assert {("workers", "fault"), ("redis", "ok")} <= found


def test_a_redis_that_refuses_info_is_not_called_away(healthy: Installation) -> None:
    rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": ["-info"]}
    healthy.redis.acl_setuser("no-info", enabled=True, passwords=["+x"], **rights)
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "no-info:x"))

    [finding] = [each for each in run_json("doctor") if each["check"] == "redis"]

    assert (finding["severity"], "INFO is refused" in finding["message"]) == ("warning", True)


@pytest.mark.parametrize(
    ("refused", "check", "severity", "message"),
    [
        (["-time"], "clocks", "warning", "Redis refuses TIME"),
        (["-smembers"], "workers", "skipped", "this user may not read those of critical"),
        (["-hget"], "workers", "skipped", "this user may not read those of critical"),
        (["-evalsha"], "redis", "fault", "this user may not push"),
        (["-ping"], "redis", "fault", "it cannot be used"),
    ],
)
def test_what_a_redis_user_may_not_run_is_named_and_nothing_else_blamed(
    healthy: Installation, refused: list[str], check: str, severity: str, message: str
) -> None:
    rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": refused}
    healthy.redis.acl_setuser("limited", enabled=True, passwords=["+x"], **rights)
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "limited:x"))

    found = run_json("doctor")

    named = [
        each for each in found if each["check"] == check and message in each["message"] and "NOPERM" in each["message"]
    ]
    assert [each["severity"] for each in named][:1] == [severity], found
    assert [each for each in found if each["severity"] == "fault" and each not in named] == []
    assert not any("start Redis" in each["fix"] for each in found)


@pytest.mark.parametrize("schema", ["outbox", "Our Schema"])
def test_a_schema_of_one_s_own_is_no_fault(healthy: Installation, schema: str) -> None:
    healthy.sql(f'ALTER SCHEMA {schema_of(healthy)} RENAME TO "{schema}"')
    options = quote(f'-csearch_path="{schema}"'.replace(" ", "\\ "))
    healthy.set("DATABASE_URL", with_parameter(os.environ["DATABASE_URL"], f"options={options}"))

    assert faults() == {}
