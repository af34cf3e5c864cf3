"""PostgreSQL from the wheel: killed, started again, and leaving nothing behind."""

import contextlib
import os
import threading
from pathlib import Path

import psycopg
import pytest

from embedded.errors import AlreadyRunningError, EmbeddedError
from embedded.programs import folders
from embedded.servers.postgres import PostgresServer
from tests.waiting import wait_until

AS_ROOT = os.geteuid() == 0

# As in the session's own server: nobody pulls a plug.
SETTINGS = {"fsync": "off"}


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM notes").fetchone()
        assert row is not None
        return int(row[0])


def write_note(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id int)")
        connection.execute("INSERT INTO notes VALUES (1)")


def show(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])


def test_what_was_committed_is_there_after_kill_stop_and_restart(own_postgres: PostgresServer) -> None:
    url = own_postgres.url()
    write_note(url)

    own_postgres.kill()
    own_postgres.start()
    write_note(url)
    own_postgres.stop("immediate")
    own_postgres.start()
    write_note(url)
    own_postgres.restart()

    assert own_postgres.url() == url
    assert count(url) == 3


def test_a_server_that_others_killed_is_started_again(own_postgres: PostgresServer) -> None:
    write_note(own_postgres.url())

    os.kill(own_postgres.pid, 9)
    wait_until(lambda: not own_postgres.running, 10, "the end of the postmaster")
    own_postgres.start()

    assert count(own_postgres.url()) == 1


def test_kill_waits_for_a_backend_that_is_busy(own_postgres: PostgresServer) -> None:
    def work() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            busy.execute("SELECT count(*) FROM generate_series(1, 1000000000)")

    with psycopg.connect(own_postgres.url(), application_name="busy") as busy:
        working = threading.Thread(target=work)
        working.start()
        with psycopg.connect(own_postgres.url(), autocommit=True) as watching:
            busy_one = "SELECT FROM pg_stat_activity WHERE application_name = 'busy' AND state = 'active'"
            wait_until(lambda: watching.execute(busy_one).rowcount, 10, "a backend at work")
        own_postgres.kill()
        own_postgres.start()
        working.join()

    assert own_postgres.running


def test_a_running_server_is_not_started_twice(own_postgres: PostgresServer) -> None:
    with pytest.raises(AlreadyRunningError):
        own_postgres.start()


def test_a_folder_in_use_is_left_alone(own_postgres: PostgresServer) -> None:
    second = PostgresServer(own_postgres.folder, settings=SETTINGS, predecessor_seconds=0.2)

    with pytest.raises(AlreadyRunningError, match=str(own_postgres.pid)):
        second.start()

    write_note(own_postgres.url())


def test_two_clusters_run_side_by_side(own_postgres: PostgresServer, folder: Path) -> None:
    other = PostgresServer(folder, settings=SETTINGS)
    other.start()
    try:
        write_note(own_postgres.url())
        own_postgres.kill()
        write_note(other.url())

        assert count(other.url()) == 1
    finally:
        other.remove()


def test_nothing_but_loopback_is_listened_on(own_postgres: PostgresServer) -> None:
    assert show(own_postgres.url(), "listen_addresses") == "127.0.0.1"
    assert not show(own_postgres.url(), "unix_socket_directories")


def test_settings_are_passed_on_and_durability_is_the_default(own_postgres: PostgresServer, folder: Path) -> None:
    durable = PostgresServer(folder)
    durable.start()
    try:
        assert show(own_postgres.url(), "fsync") == "off"
        assert show(durable.url(), "fsync") == "on"
        assert show(durable.url(), "synchronous_commit") == "on"
        assert show(durable.url(), "server_encoding") == "UTF8"
        assert show(durable.url(), "lc_messages") == "C"
    finally:
        durable.remove()


def test_a_schema_that_cannot_be_applied_says_why(own_postgres: PostgresServer, folder: Path) -> None:
    wrong = folder / "wrong.sql"
    wrong.write_text("CREATE TABLE;")

    with pytest.raises(EmbeddedError, match="syntax error"):
        own_postgres.apply_schema("outbox", wrong)


def test_a_failed_start_shows_the_log(folder: Path) -> None:
    server = PostgresServer(folder, settings={"shared_buffers": "nonsense"})

    with pytest.raises(EmbeddedError, match=r"(?s)ended with exit code 1.*nonsense"):
        server.start()

    server.remove()


def test_removing_a_killed_server_leaves_nothing(folder: Path) -> None:
    segments = Path("/proc/sysvipc/shm")
    if not segments.exists():
        pytest.skip("this system does not list its shared memory")
    server = PostgresServer(folder, settings=SETTINGS)
    server.start()
    key = int((server.data / "postmaster.pid").read_text().splitlines()[6].split()[1])

    server.kill()

    assert f" {key} " in segments.read_text()

    server.remove()

    assert f" {key} " not in segments.read_text()
    assert not server.data.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root lends an account")
def test_root_runs_it_as_another_user_from_a_copy_owned_by_root(own_postgres: PostgresServer) -> None:
    process = Path(f"/proc/{own_postgres.pid}")
    copy = (process / "exe").resolve()

    assert process.stat().st_uid != 0
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o022) == (0, 0)
    assert all((place.stat().st_uid, place.stat().st_mode & 0o022) == (0, 0) for place in copy.parents[:4])


@pytest.mark.skipif(not AS_ROOT, reason="only root lends an account")
def test_data_lie_elsewhere_where_the_account_may_not_enter(tmp_path: Path, folder: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = PostgresServer(closed, settings=SETTINGS, data_parents=[folder])
    server.start()
    write_note(server.url())
    server.stop()

    again = PostgresServer(closed, settings=SETTINGS, data_parents=[folder])
    again.start()

    assert folder in again.data.parents
    assert str(again.data) in (closed / folders.ELSEWHERE_NOTE).read_text()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert count(again.url()) == 1

    data = again.data
    again.remove()

    assert not data.exists()
    assert not (closed / folders.ELSEWHERE_NOTE).exists()
