"""compose.yaml, used as the documents say: it comes up, survives kills, and is replaced beside an open transaction."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compose_proof.engine import Engine
from tests.compose_proof.load import Outcomes, requests_to
from tests.compose_proof.running import API, PROJECT, Composed, printed
from tests.waiting import wait_until

KILLED = ("api", "relay", "worker", "redis", "postgres")
READY = f"{API}/readyz"
OVERLAP_READY = "http://127.0.0.1:8081/readyz"
UPDATE = printed("docs/deployment.md", "### A new version")
MIGRATION = """
from alembic import op
revision, down_revision = "9999_proof", "{head}"
def upgrade():
    op.execute("ALTER TABLE outbox ADD COLUMN proof text")
"""


@pytest.fixture(scope="module")
def composed(engine: Engine, project: Path) -> Iterator[Composed]:
    """The project, brought up with the lines of docs/deployment.md."""
    composed = Composed(engine, project)
    composed.shell(printed("docs/deployment.md", "### The first start"))
    yield composed
    (engine.folder / "compose.log").write_text(composed.compose("logs", "--no-color").stdout)
    composed.compose("--profile", "overlap", "down", "--volumes")


def test_all_services_are_healthy_and_nothing_is_left_over(composed: Composed) -> None:
    found = {container["Service"]: container for container in composed.containers()}

    assert {name: found[name]["Health"] for name in found if name != "schema"} == dict.fromkeys(
        ["api", "mailpit", "postgres", "redis", "relay", "worker"], "healthy"
    )
    assert (found["schema"]["State"], found["schema"]["ExitCode"]) == ("exited", 0)
    assert volumes(composed) == [f"{PROJECT}_postgres-data", f"{PROJECT}_redis-data"]


def test_the_lines_of_the_readme_may_be_repeated(composed: Composed) -> None:
    before = (composed.project / ".env").read_text()

    composed.shell(printed("docs/deployment.md", "### The first start"))

    assert (composed.project / ".env").read_text() == before
    assert volumes(composed) == [f"{PROJECT}_postgres-data", f"{PROJECT}_redis-data"]


def test_six_mails_arrive_after_five_kills(composed: Composed) -> None:
    composed.sign_up("first")
    for service in KILLED:
        composed.engine.kill_9(f"{PROJECT}-{service}-1")
        composed.sign_up(f"after_{service}", timeout_seconds=120)

    composed.wait_for_mails("first", *(f"after_{service}" for service in KILLED))
    assert len(set(composed.recipients())) == 6


def test_doctor_finds_nothing_wrong(composed: Composed) -> None:
    wait_until(lambda: doctor(composed).returncode == 0, 120, "a content doctor")
    said = doctor(composed).stdout

    assert [line for line in said.splitlines() if line and not line.startswith("ok ")] == []


def test_a_full_redis_refuses_and_is_not_killed(composed: Composed) -> None:
    # 10 MB each: a script that has begun to write is not stopped.
    fill = "for i = 1, 100 do redis.call('SET', KEYS[1] .. i, string.rep('x', 100000)) end"
    filled = composed.compose(
        "exec", "-T", "redis", "sh", "-c", f'for n in $(seq 60); do redis-cli EVAL "{fill}" 1 fill:$n: ; done'
    )
    composed.sign_up("while_redis_was_full")
    free = "for i = 1, 60 do for j = 1, 100 do redis.call('DEL', 'fill:' .. i .. ':' .. j) end end"
    composed.compose("exec", "-T", "redis", "redis-cli", "EVAL", free, "0")

    assert "OOM command not allowed" in filled.stdout + filled.stderr
    assert inspect(composed, "redis", "{{.RestartCount}} {{.State.OOMKilled}}").endswith(" false")
    composed.wait_for_mails("while_redis_was_full")


def test_a_new_version_with_nothing_to_migrate_starts_beside_an_open_transaction(composed: Composed) -> None:
    """One `up` is enough, if its interruption is."""
    change_the_code(composed)
    with open_transaction(composed), requests_to(composed.engine, READY) as outcomes:
        composed.shell("docker compose up --build --detach --wait")

    report(composed, "one up", outcomes)
    composed.sign_up("after_one_up")
    composed.wait_for_mails("after_one_up")


def test_a_migration_waits_for_an_open_transaction_while_the_old_version_serves(composed: Composed) -> None:
    add_a_migration(composed)
    build, migrate, *rest = commands(UPDATE)[:4]
    with requests_to(composed.engine, READY) as outcomes:
        composed.shell(build)
        with open_transaction(composed) as holder, requests_to(composed.engine, READY) as meanwhile:
            waiting = composed.start(migrate)
            composed.sign_up("beside_an_open_transaction")
            composed.wait_for_mails("beside_an_open_transaction")
            holder.communicate(timeout=90)
        said, _ = waiting.communicate(timeout=60)
        for line in rest:
            composed.shell(line)

    report(composed, "one after the other", outcomes)
    assert waiting.returncode == 0, said
    assert "A table is locked by another transaction" in said
    assert meanwhile.failures == []
    assert composed.sql("SELECT count(proof) FROM outbox") == "0"
    assert composed.sql("SELECT version_num FROM alembic_version") == "9999_proof"


def test_a_new_version_that_overlaps_the_old_one_interrupts_nobody(composed: Composed) -> None:
    change_the_code(composed)
    with requests_to(composed.engine, READY, OVERLAP_READY) as outcomes:
        for line in commands(UPDATE)[4:]:
            composed.shell(line)

    report(composed, "overlap", outcomes)
    assert outcomes.failures == []
    assert "api-overlap" not in {container["Service"] for container in composed.containers()}


def test_doctor_finds_nothing_wrong_at_the_end(composed: Composed) -> None:
    test_doctor_finds_nothing_wrong(composed)


def doctor(composed: Composed) -> subprocess.CompletedProcess[str]:
    return composed.compose("exec", "-T", "worker", "python", "-m", "outbox_relay", "doctor", check=False)


def volumes(composed: Composed) -> list[str]:
    return sorted(composed.engine.docker("volume", "ls", "--quiet").stdout.split())


def inspect(composed: Composed, service: str, template: str) -> str:
    return composed.engine.docker("inspect", "--format", template, f"{PROJECT}-{service}-1").stdout.strip()


def commands(lines: str) -> list[str]:
    return lines.strip().splitlines()


def change_the_code(composed: Composed) -> None:
    """Make the next build another one."""
    version = composed.project / "shared" / "version.py"
    version.write_text(f"{version.read_text()}\n# {time.time_ns()}\n")


def add_a_migration(composed: Composed) -> None:
    """Give the next build a migration that needs the whole table for itself."""
    head = composed.sql("SELECT version_num FROM alembic_version")
    (composed.project / "migrations" / "versions" / "9999_proof.py").write_text(MIGRATION.format(head=head))


@contextmanager
def open_transaction(composed: Composed) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock on the outbox for a minute and more, as a forgotten session or a long report does."""
    lines = (
        "BEGIN; INSERT INTO outbox (task, payload, queue, due_at) VALUES ('task:none', '{}', 'default', 'infinity');"
    )
    command = f"{lines} SELECT pg_sleep(70); ROLLBACK"
    psql = "docker compose exec -T postgres psql --username=outbox --dbname=outbox --command"
    holder = composed.start(f'{psql} "{command}"')
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    try:
        wait_until(lambda: composed.sql(asleep) == "1", 30, "the open transaction")
        yield holder
    finally:
        composed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        holder.communicate()


def report(composed: Composed, name: str, outcomes: Outcomes) -> None:
    """Print what an update interrupted, and keep it beside the logs."""
    line = f"{name}: {outcomes}"
    print(line)  # noqa: T201 - `make compose-proof` shows it
    with (composed.engine.folder / "interruptions.txt").open("a") as file:
        file.write(f"{line}\n")
