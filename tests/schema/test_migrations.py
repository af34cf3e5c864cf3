"""Migrations end where schema.sql stands, and disturb nobody on their way."""

import os
import re
import secrets
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict
from rq.defaults import RQ_KEY_PREFIX

from embedded.servers.databases import Databases
from outbox_relay.broker import open_broker
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup import Alarm
from shared.database.connections import connect
from tests.conftest import SCHEMA, StartPostgres
from tests.processes import ROOT
from tests.relay_settings import relay_settings
from tests.roles import limited_role, with_role
from tests.rows import add_message, message
from tests.schema.test_schema import describe
from tests.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

NOBODY_WAITS_LONGER_SECONDS = 1.0


def alembic(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def upgrade(database_url: str, revision: str = "head") -> None:
    """Do what `alembic upgrade` does, in this process: starting another one takes longer than most migrations."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", database_url)
        command.upgrade(Config(ROOT / "alembic.ini"), revision)


def schema_of(database_url: str) -> list[tuple[Any, ...]]:
    with connect(database_url, "test") as connection:
        return [row for row in describe(connection) if "alembic" not in row[0]]


def test_the_migrations_of_an_empty_database_end_where_schema_sql_stands(
    database_url: str, empty_database_url: str
) -> None:
    upgrade(empty_database_url)

    assert schema_of(empty_database_url) == schema_of(database_url)


def constraints_of(database_url: str) -> list[tuple[Any, ...]]:
    """Constraints by their numbers: one that was made anew has another."""
    with connect(database_url, "test") as connection:
        return connection.execute(
            "SELECT oid, conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass ORDER BY oid"
        ).fetchall()


def test_a_database_made_with_schema_sql_is_left_as_it_is(database_url: str) -> None:
    before = schema_of(database_url), constraints_of(database_url)

    upgrade(database_url)

    assert (schema_of(database_url), constraints_of(database_url)) == before
    assert "(head)" in alembic(database_url, "current").stdout


def test_rules_that_a_later_schema_sql_made_are_left_as_they_are(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute("ALTER DOMAIN valid_message ADD CONSTRAINT later CHECK ((VALUE).task <> 'x')")
    before = schema_of(database_url)

    upgrade(database_url)

    assert schema_of(database_url) == before


@pytest.mark.parametrize("revision", ["0004", "0007", "0011", "0015", "0016"])
def test_a_schema_sql_that_was_applied_between_two_migrations_changes_nothing_about_the_end(
    postgres: Databases, database_url: str, empty_database_url: str, revision: str
) -> None:
    upgrade(empty_database_url, revision)
    postgres.apply_schema(conninfo_to_dict(empty_database_url)["dbname"], SCHEMA)

    upgrade(empty_database_url)

    assert schema_of(empty_database_url) == schema_of(database_url)


def test_the_rules_hold_while_they_move_into_a_function_and_into_a_type(empty_database_url: str) -> None:
    with connect(empty_database_url, "test") as connection:
        for revision in ("0004", "0005", "0006", "0007", "0008", "0009", "0010"):
            upgrade(empty_database_url, revision)
            connection.execute("INSERT INTO outbox (task, payload) VALUES ('t', '{}')")

            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                connection.execute("INSERT INTO outbox (task, payload, queue) VALUES ('t', '{}', 'urgent')")

            assert caught.value.diag.constraint_name == "outbox_queue_known", revision


def test_a_uid_is_for_new_rows_and_rewrites_no_old_one(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0010")
    with connect(empty_database_url, "test") as connection:
        add = "INSERT INTO outbox (task, payload) VALUES ('t', '{}')"
        files = "SELECT pg_relation_filenode('outbox'), pg_relation_filenode('outbox_finished')"
        connection.execute(add)
        before = connection.execute(files).fetchone()

        upgrade(empty_database_url)

        connection.execute(add)
        uids = connection.execute("SELECT uid IS NOT NULL FROM outbox_messages ORDER BY id").fetchall()
        assert (uids, connection.execute(files).fetchone()) == ([(False,), (True,)], before)


def test_accounts_from_before_are_whole_and_are_not_rewritten(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0015")
    with connect(empty_database_url, "test") as connection:
        add = "INSERT INTO users (username, email, full_name, hashed_password) VALUES (%(name)s, %(name)s, 'A', 'h')"
        files = "SELECT pg_relation_filenode('users'), pg_relation_filenode('verify_emails')"
        connection.execute(add, {"name": "before"})
        connection.execute(
            "INSERT INTO verify_emails (username, email, message_id, expires_at) VALUES ('before', 'b', 1, now())"
        )
        before = connection.execute(files).fetchone()

        upgrade(empty_database_url)

        connection.execute(add, {"name": "after"})
        columns = "verified_at, first_mail_id, email_set_at, corrected_at, wrong_passwords_at"
        rows = connection.execute(f"SELECT {columns} FROM users").fetchall()
        assert rows == [(None, None, None, [], [])] * 2
        assert connection.execute("SELECT wrong_passwords FROM verify_emails").fetchall() == [(0,)]
        assert connection.execute(files).fetchone() == before


def test_addresses_belong_to_verified_accounts_from_then_on(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0016")
    with connect(empty_database_url, "test") as connection:
        add = "INSERT INTO users (username, email, full_name, hashed_password) VALUES (%s, 'a@example.com', 'A', 'h')"
        connection.execute(add, ["first"])
        # What a build leaves behind that failed.
        connection.execute("CREATE INDEX users_unverified_email_idx ON users (lower(email))")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_unverified_email_idx'::regclass"
        )

        upgrade(empty_database_url)

        connection.execute(add, ["second"])
        connection.execute("UPDATE users SET is_email_verified = true WHERE username = 'second'")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("UPDATE users SET is_email_verified = true WHERE username = 'first'")
        assert schema_of_indexes(connection) == {
            "users_pkey": True,
            "users_email_key": True,
            "users_unverified_email_idx": True,
            "users_unverified_age_idx": True,
        }


def test_an_index_for_the_expiry_whose_build_failed_is_built_again(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0020")
    with connect(empty_database_url, "test") as connection:
        connection.execute("CREATE INDEX outbox_account_idx ON outbox (task)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_account_idx'::regclass")

        upgrade(empty_database_url)

        definition = connection.execute("SELECT pg_get_indexdef('outbox_account_idx'::regclass)").fetchone()
        assert definition is not None
        assert "username" in definition[0]


def schema_of_indexes(connection: Connection) -> dict[str, bool]:
    """Give the indexes of users, and whether they can be used."""
    rows = connection.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'users'::regclass"
    )
    return dict(rows.fetchall())


# Never due: a relay that returns one must not publish it anew, which mends some of it.
PUBLISHED = {
    "status": "'published'",
    "due_at": "'infinity'",
    "broker_epoch": "'e'",
    "published_at": "now()",
    "lease_until": "now()",
}
RUNNING = {
    "status": "'running'",
    "claim_token": "gen_random_uuid()",
    "claimed_at": "now()",
    "lease_until": "now()",
    "attempt": "1",
}
OUT_OF_BOUNDS: dict[str, dict[str, str]] = {
    "its payload takes": {"payload": "to_jsonb(repeat(md5('x'), 100) || repeat('x', 190000000))"},
    "generation was 2147483647": {**PUBLISHED, "generation": "2147483647"},
    "attempt was 2147483647": {**RUNNING, "attempt": "2147483647"},
    "max_retries was 1000000000": {"max_retries": "1000000000"},
    "id was -5": {"id": "-5"},
    "task had 300 bytes: ttt": {"task": "repeat('t', 300)"},
    "traceparent had 300 bytes": {"traceparent": "repeat('t', 300)"},
    "broker_epoch had 2000 bytes": {**PUBLISHED, "broker_epoch": "repeat('e', 2000)"},
    "last_error had 9000 bytes": {"last_error": "repeat('e', 9000)"},
    "due_at was 10000-01-01": {"due_at": "'10000-01-01'"},
    "due_at was 0044-03-15 00:00:00+00 BC": {"due_at": "'0044-03-15 00:00:00+00 BC'"},
    "created_at was infinity; before: a reason": {
        "created_at": "'infinity'",
        "status": "'dead'",
        "last_error": "'a reason'",
    },
    "published_at was -infinity": {**PUBLISHED, "published_at": "'-infinity'"},
    "claimed_at was 10000-01-01": {**RUNNING, "claimed_at": "'10000-01-01'"},
    "lease_until was infinity": {**RUNNING, "lease_until": "'infinity'"},
    "failures were [1]": {"failures": "'[1]'"},
}


def test_rows_out_of_bounds_become_dead_letters_while_a_relay_works(
    postgres: Databases, empty_database_url: str, redis_url: str
) -> None:
    upgrade(empty_database_url, "0012")
    relay = Relay(relay_settings(empty_database_url, redis_url), open_broker(redis_url, RQ_KEY_PREFIX, 60), Alarm())
    with connect(empty_database_url, "test") as connection, closing(relay):
        for columns in OUT_OF_BOUNDS.values():
            row = {"task": "'t'", "payload": "'{}'", **columns}
            connection.execute(
                f"INSERT INTO outbox ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
            )
        connection.execute("INSERT INTO outbox (task, payload, due_at) VALUES ('fine', '{}', 'infinity')")
        working = threading.Thread(target=relay.run)
        working.start()
        try:
            upgrade(empty_database_url)
            fresh = add_message(connection)
            wait_until(lambda: message(connection, fresh)["status"] == "published", 20, "the relay to publish")
        finally:
            relay.stop()
            working.join(20)

        reasons = [reason for (reason,) in connection.execute("SELECT last_error FROM outbox WHERE status = 'dead'")]
        missing = [each for each in OUT_OF_BOUNDS if not any(each in reason for reason in reasons)]
        assert (missing, len(reasons)) == ([], len(OUT_OF_BOUNDS))
        assert all(reason.startswith("out of bounds: ") for reason in reasons)
        sizes = connection.execute("SELECT max(pg_column_size(payload)) FROM outbox").fetchone()
        assert sizes is not None
        assert sizes[0] > 1_048_576  # what the payload said is kept
        alive = connection.execute("SELECT task FROM outbox WHERE status = 'pending'").fetchall()
        assert alive == [("fine",)]


def test_a_row_that_was_written_badly_between_two_migrations_is_found(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0013")
    with connect(empty_database_url, "test") as connection:
        connection.execute("INSERT INTO outbox (task, payload, due_at) VALUES ('t', '{}', '10000-01-01')")

        upgrade(empty_database_url)

        assert connection.execute("SELECT status FROM outbox").fetchall() == [("dead",)]


def test_there_is_one_way_to_one_head() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))

    assert len(scripts.get_heads()) == 1
    assert [script.revision for script in scripts.walk_revisions()][-1] == "0001"


def test_nobody_waits_for_a_migration_that_waits_for_a_lock(empty_database_url: str, tmp_path: Path) -> None:
    """A forgotten transaction holds the table; a migration wants it whole; signups come in all the while."""
    upgrade(empty_database_url, "0001")
    greedy = tmp_path / "migrations"
    write_greedy_migration(greedy)
    with connect(empty_database_url, "forgotten") as forgotten, connect(empty_database_url, "signups") as signups:
        stop = threading.Event()
        waits: list[float] = []
        signing_up = threading.Thread(target=sign_up_until, args=(stop, signups, waits))
        with forgotten.transaction():
            forgotten.execute("SELECT count(*) FROM outbox")
            migration = start_alembic(empty_database_url, greedy)
            signing_up.start()
            wait_until(lambda: waits and max(waits) > 0.2, 20, "a signup that had to wait for the migration")
        _, said = migration.communicate(timeout=30)
        assert migration.returncode == 0, said
        stop.set()
        signing_up.join()

        assert max(waits) < NOBODY_WAITS_LONGER_SECONDS
        assert signups.execute("SELECT count(*) FROM outbox").fetchone() == (len(waits),)
        assert signups.execute("SELECT count(new_column) FROM outbox").fetchone() == (0,)


def test_a_migrated_database_takes_no_lock(database_url: str) -> None:
    """Each start of the containers migrates, whoever has a transaction open, even on the whole tables."""
    upgrade(database_url, "head")
    with connect(database_url, "forgotten") as forgotten, forgotten.transaction():
        forgotten.execute("LOCK TABLE outbox, outbox_finished, users IN ACCESS EXCLUSIVE MODE")

        upgrade(database_url, "head")


def test_a_whole_minute_of_tries_is_not_the_end(empty_database_url: str, tmp_path: Path) -> None:
    """The processes of the new version wait for the migration: it does not give up."""
    upgrade(empty_database_url, "0001")
    greedy = tmp_path / "migrations"
    write_greedy_migration(greedy)
    impatient = greedy / "env.py"
    impatient.write_text(re.sub(r"_PAUSE_SECONDS: Final = .+", "_PAUSE_SECONDS: Final = 0.01", impatient.read_text()))
    quick = impatient.read_text().replace("LOCK_MILLISECONDS: Final = 500", "LOCK_MILLISECONDS: Final = 5")
    impatient.write_text(quick)
    with connect(empty_database_url, "forgotten") as forgotten:
        with forgotten.transaction():
            forgotten.execute("SELECT count(*) FROM outbox")
            migration = start_alembic(empty_database_url, greedy)
            assert migration.stderr is not None
            reports = [migration.stderr.readline() for _ in range(4)]
            holder = f"process {forgotten.info.backend_pid} (forgotten, idle in transaction)"
        _, said = migration.communicate(timeout=30)

    # A report each thirty tries: the fourth follows the ninety-first.
    assert [report for report in reports if holder not in report] == []
    assert migration.returncode == 0, said


def test_a_holder_of_another_role_is_named_though_its_age_is_hidden(empty_database_url: str, tmp_path: Path) -> None:
    upgrade(empty_database_url, "0001")
    greedy = tmp_path / "migrations"
    write_greedy_migration(greedy)
    with (
        connect(empty_database_url, "owner") as owner,
        limited_role(owner, {"alembic_version": ["ALL"]}) as role,
        connect(empty_database_url, "forgotten") as forgotten,
    ):
        [(formerly,)] = owner.execute("SELECT current_user::text").fetchall()
        schema = owner.execute("SELECT current_schema()").fetchall()[0][0]
        owner.execute(f'GRANT CREATE ON SCHEMA "{schema}" TO {role}')
        owner.execute(f"ALTER TABLE outbox OWNER TO {role}")
        with forgotten.transaction():
            forgotten.execute("SELECT count(*) FROM outbox")
            migration = start_alembic(with_role(empty_database_url, role), greedy)
            assert migration.stderr is not None
            report = migration.stderr.readline()
            holder = f"process {forgotten.info.backend_pid} (forgotten, its state is hidden), its age is hidden"
        _, said = migration.communicate(timeout=30)
        owner.execute(f'ALTER TABLE outbox OWNER TO "{formerly}"')

    assert holder in report, report
    assert migration.returncode == 0, said


def test_a_prepared_transaction_that_holds_the_lock_is_named(
    server_folder: Path, start_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = start_postgres(server_folder / f"prepared-{secrets.token_hex(4)}", max_prepared_transactions="1")
    try:
        check_the_report_of_a_prepared_transaction(server.create_database("prepared"), tmp_path)
    finally:
        server.remove()


def check_the_report_of_a_prepared_transaction(url: str, tmp_path: Path) -> None:
    upgrade(url, "0001")
    greedy = tmp_path / "migrations"
    write_greedy_migration(greedy)
    with connect(url, "forgotten") as forgotten:
        forgotten.execute("BEGIN; SELECT count(*) FROM outbox; PREPARE TRANSACTION 'forgotten'")
        migration = start_alembic(url, greedy)
        assert migration.stderr is not None
        report = migration.stderr.readline()
        forgotten.execute("ROLLBACK PREPARED 'forgotten'")
    _, said = migration.communicate(timeout=30)

    assert "a prepared transaction (see pg_prepared_xacts)" in report, report
    assert migration.returncode == 0, said


def test_a_migration_that_waits_for_another_one_keeps_no_snapshot(database_url: str) -> None:
    """What the other one does may have to wait for all snapshots: it would wait for the one that waits for it."""
    with connect(database_url, "another-migration") as another:
        another.execute("SELECT pg_advisory_lock(7382945610291)")
        waiting = start_alembic(database_url, ROOT)
        asks = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'outbox-migrations'"
            " AND (query LIKE '%advisory_lock%' OR query = 'COMMIT')"
        )
        wait_until(lambda: another.execute(asks).fetchone() is not None, 20, "the second to ask for the lock")
        another.execute("CREATE INDEX CONCURRENTLY test_idx ON outbox (task)")
        another.execute("SELECT pg_advisory_unlock(7382945610291)")
        _, said = waiting.communicate(timeout=30)

    assert waiting.returncode == 0, said


def sign_up_until(stop: threading.Event, connection: Connection, waits: list[float]) -> None:
    while not stop.is_set():
        began = time.monotonic()
        connection.execute("INSERT INTO outbox (task, payload) VALUES ('t', '{}')")
        waits.append(time.monotonic() - began)
        stop.wait(0.01)


def write_greedy_migration(folder: Path) -> None:
    """Copy the migrations, and add one that needs the whole table for itself."""
    versions = folder / "versions"
    versions.mkdir(parents=True)
    for name in ("env.py", "script.py.mako", "versions/0001_first_schema.py", "versions/0001_first_schema.sql"):
        (folder / name).write_text((ROOT / "migrations" / name).read_text())
    (versions / "0002_greedy.py").write_text(
        "from alembic import op\nrevision, down_revision = '0002', '0001'\n"
        "def upgrade():\n    op.execute('ALTER TABLE outbox ADD COLUMN new_column text')\n"
    )
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\npath_separator = os\n")


def start_alembic(database_url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "-c", str(folder / "alembic.ini"), "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        stderr=subprocess.PIPE,
        text=True,
    )
