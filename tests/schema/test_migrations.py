"""Migrations end at schema.sql, and block no running process."""

import os
import re
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from shared.database.connections import connect
from tests.conftest import StartPostgres
from tests.programs.processes import ROOT
from tests.schema.catalogue import schema_of
from tests.schema.migrating import alembic, upgrade
from tests.servers.roles import limited_role, with_role
from tests.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

NOBODY_WAITS_LONGER_SECONDS = 1.0


def test_the_migrations_of_an_empty_database_end_where_schema_sql_stands(
    database_url: str, empty_database_url: str
) -> None:
    upgrade(empty_database_url)

    assert schema_of(empty_database_url) == schema_of(database_url)


def constraints_of(database_url: str) -> list[tuple[Any, ...]]:
    """Constraints by their numbers: one that was made again has another."""
    with connect(database_url, "test") as connection:
        return connection.execute(
            "SELECT oid, conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass ORDER BY oid"
        ).fetchall()


def test_a_database_made_with_schema_sql_is_left_as_it_is(database_url: str) -> None:
    before = schema_of(database_url), constraints_of(database_url)

    upgrade(database_url)

    assert (schema_of(database_url), constraints_of(database_url)) == before
    assert "(head)" in alembic(database_url, "current").stdout


@pytest.mark.parametrize("revision", ["0001_schema", "head"])
def test_a_database_that_a_later_schema_sql_made_is_left_as_it_is(database_url: str, revision: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute("ALTER TABLE outbox ADD COLUMN later text")
        connection.execute("CREATE OR REPLACE VIEW outbox_messages AS SELECT *, NULL AS later FROM outbox_finished")
    before = schema_of(database_url)

    upgrade(database_url, revision)

    assert schema_of(database_url) == before


def test_there_is_one_way_to_one_head_and_each_revision_is_named_like_its_file() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))

    assert len(scripts.get_heads()) == 1
    revisions = {script.revision: Path(script.path).stem for script in scripts.walk_revisions()}
    assert list(revisions)[-1] == "0001_schema"
    assert {revision: name for revision, name in revisions.items() if revision != name} == {}
    # These were the revisions before 0001_schema: a database that has one is refused.
    assert [revision for revision in revisions if re.fullmatch(r"\d{4}", revision)] == []


def test_a_migration_that_waits_for_a_lock_blocks_no_other_process(empty_database_url: str, tmp_path: Path) -> None:
    """A forgotten transaction holds the table; a migration wants it whole; signups come in all the while."""
    upgrade(empty_database_url, "0001_schema")
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
    """Each start of the containers migrates, even while a transaction holds the whole tables."""
    upgrade(database_url, "head")
    with connect(database_url, "forgotten") as forgotten, forgotten.transaction():
        forgotten.execute("LOCK TABLE outbox, outbox_finished, users IN ACCESS EXCLUSIVE MODE")

        upgrade(database_url, "head")


def test_a_whole_minute_of_tries_is_not_the_end(empty_database_url: str, tmp_path: Path) -> None:
    """The processes of the new version wait for the migration: it does not give up."""
    upgrade(empty_database_url, "0001_schema")
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


def test_a_step_that_takes_too_long_is_not_reported_as_a_lock(empty_database_url: str, tmp_path: Path) -> None:
    greedy = tmp_path / "migrations"
    write_greedy_migration(greedy)
    (greedy / "versions" / "0002_greedy.py").write_text(
        "from alembic import op\nrevision, down_revision = '0002_greedy', '0001_schema'\n"
        "errors = iter(['lock_not_available', 'query_canceled', 'query_canceled'])\n"
        "def upgrade():\n    for error in errors:\n        op.execute(f'DO $$ BEGIN RAISE {error}; END $$')\n"
    )

    migration = start_alembic(empty_database_url, greedy)
    _, said = migration.communicate(timeout=30)

    assert (migration.returncode, said.count("A table is locked")) == (0, 1), said


def test_a_holder_of_another_role_is_named_though_its_age_is_hidden(empty_database_url: str, tmp_path: Path) -> None:
    upgrade(empty_database_url, "0001_schema")
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
    upgrade(url, "0001_schema")
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
    for name in ("env.py", "script.py.mako", "versions/0001_schema.py", "versions/0001_schema.sql"):
        (folder / name).write_text((ROOT / "migrations" / name).read_text())
    (versions / "0002_greedy.py").write_text(
        "from alembic import op\nrevision, down_revision = '0002_greedy', '0001_schema'\n"
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
