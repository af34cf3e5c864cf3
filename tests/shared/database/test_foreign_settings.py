"""A database whose administrator has set what a session begins with: nothing of ours may notice."""

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from api.database.engine import build_engine, connected
from consumer.stages.database import Database
from embedded.mail.catcher import MailCatcher
from shared.database.connections import DbConnection, connect, own_transaction, transaction
from tests.api.accounts.steps import let_claim
from tests.consumer.stages.processing.world import World
from tests.outbox_relay.commands.running import run, run_json
from tests.programs.api_service import ALICE, KEY, ApiService, api_service
from tests.rows import add_message
from tests.servers.pgbouncer import pgbouncer
from tests.settings.database_defaults import SHORT_TIMES, set_foreign_settings
from tests.settings.relay import open_relay, relay_settings

TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own
NAME = "Zoë Ωμέγα 王"
NEEDED = {
    "datestyle": "ISO, DMY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "transaction_isolation": "read committed",
    "statement_timeout": "0",
    "jit": "off",
}


@pytest.fixture
def foreign_times() -> dict[str, str]:
    """How long the database allows this and that, where it is not as tests/settings/database_defaults.py has it."""
    return {}


@pytest.fixture(params=["direct", "pooled"])
def foreign_url(
    request: pytest.FixtureRequest,
    database_url: str,
    foreign_times: dict[str, str],
    server_folder: Path,
    tmp_path: Path,
) -> Iterator[str]:
    """The address of a database with foreign settings, or that of a PgBouncer before it."""
    set_foreign_settings(database_url, **foreign_times)
    folder = server_folder / f"foreign-{tmp_path.name}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pgbouncer(database_url, folder) if request.param == "pooled" else nullcontext(database_url) as url:
        yield url


def sign_up_with_a_key(api: ApiService) -> tuple[int, bytes]:
    request = {**ALICE, "username": "bob", "email": "bob@example.com"}
    response = api.client().post("/v1/users", json=request, headers={"Idempotency-Key": "one"})
    return response.status_code, response.data


def test_a_signup_its_mail_its_link_and_what_operators_see(
    foreign_url: str, redis_url: str, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        api_service(foreign_url, ops_token=TOKEN) as api,
        closing(World(foreign_url, mailbox.smtp_port)) as world,
        open_relay(relay_settings(foreign_url, redis_url)) as relay,
    ):
        before = datetime.now(UTC) - timedelta(seconds=60)
        first = api.sign_up(full_name=NAME)
        assert first.status_code == 201
        assert first.json is not None
        assert first.json["created_at"].endswith("+00:00")
        assert before < datetime.fromisoformat(first.json["created_at"]) < datetime.now(UTC) + timedelta(seconds=60)
        assert api.sign_up().json == first.json
        with_key = sign_up_with_a_key(api)
        assert (with_key[0], sign_up_with_a_key(api)) == (201, with_key)
        for _ in range(2):  # the first becomes part of the mail that waits
            assert api.client().post("/v1/verify_email/resend", json={"email": ALICE["email"]}).status_code == 202
            let_claim(api)
            api.sql("DELETE FROM resends")

        assert relay.run_once().published == 3
        with transaction(world.connection):
            ids = [row[0] for row in world.connection.execute("SELECT id FROM outbox ORDER BY id").fetchall()]
        assert [world.process(id_, secret_keys=(KEY,)).value for id_ in ids] == ["delivered"] * 3
        mails = mailbox.mails()
        assert sorted(mail.recipients[0] for mail in mails) == [
            "alice@example.com",
            "alice@example.com",
            "bob@example.com",
        ]
        link = next(mail.links[0] for mail in mails if mail.recipients[0] == "alice@example.com")
        verified = api.client().post(f"/v1/{link.rpartition('/v1/')[2]}")
        assert verified.json == {"is_verified": True}
        assert relay.run_once().published == 1
        assert world.process(ids[-1] + 1, secret_keys=(KEY,)).value == "delivered"
        assert NAME in mailbox.mails()[-1].text

        monkeypatch.setenv("DATABASE_URL", foreign_url)
        with transaction(world.connection):
            dead = add_message(world.connection, status="dead", failures=Jsonb([{"attempt": 1, "reason": "x"}]))
        check_operators(api, dead)


def check_operators(api: ApiService, dead: int) -> None:
    """Let the commands, the metrics and the console show what there is."""
    assert len(run_json("list")) == 5
    assert run_json("show", dead)["created_at"].endswith("+00:00")
    for command in (
        ("list",),
        ("show", dead),
        ("dead",),
        ("stats",),
        ("retry", dead),
        ("discard", dead, "--reason", "x"),
        ("replay", "--task", "task:send_verify_email", "--since", "2026-01-01", "--yes"),
        ("prune", "--older-than-days", 1, "--yes"),
    ):
        ended = run(*command)
        assert ended.exit_code == 0, (command, ended.output)
    operator = api.client()
    assert operator.post("/ops/login", data={"token": TOKEN}).status_code == 303
    assert operator.get("/ops").status_code == 200
    assert "outbox_postgresql_up 1.0" in api.client().get("/metrics").text
    assert api.client().get("/readyz").status_code == 200


@own_transaction
def settings_of(connection: DbConnection) -> dict[str, str]:
    return {name: shown(connection, name) for name in NEEDED}


def shown(connection: DbConnection, name: str) -> str:
    row = connection.execute(SQL("SHOW {}").format(Identifier(name))).fetchone()
    assert row is not None
    return str(row[0])


def test_every_connection_has_what_our_statements_depend_on(foreign_url: str) -> None:
    found = {}
    with connect(foreign_url, "test") as connection:
        found["relay's statement"] = settings_of(connection)
        with transaction(connection):
            found["relay's transaction"] = settings_of(connection)
    database = Database(foreign_url)
    with database.transaction() as connection:
        found["worker"] = settings_of(connection)
    database.close()
    engine = build_engine(foreign_url)
    for in_transaction in (False, True):
        with connected(engine, in_transaction=in_transaction) as borrowed:
            found[f"API {in_transaction}"] = {
                name: borrowed.exec_driver_sql(f"SHOW {name}").scalar_one() for name in NEEDED
            }
    engine.dispose()

    assert {
        who: {name: value for name, value in settings.items() if value != NEEDED[name]}
        for who, settings in found.items()
    } == {who: {} for who in found}


@pytest.mark.parametrize("foreign_times", [SHORT_TIMES])
def test_a_statement_may_take_longer_and_a_session_may_be_idle(foreign_url: str) -> None:
    with connect(foreign_url, "test") as connection:
        with transaction(connection):
            connection.execute("SELECT pg_sleep(0.5)")
        time.sleep(0.5)  # what is tested: nothing ends the session meanwhile
        with transaction(connection):
            time.sleep(0.5)
            assert connection.execute("SELECT 1").fetchone() == (1,)
