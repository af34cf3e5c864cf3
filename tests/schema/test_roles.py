"""A signup, its mail, its link and what an operator sees, each process with the grants of docs/roles.sql alone."""

import re
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from flask.testing import FlaskClient

from consumer.task.registry import load_tasks
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from embedded.servers.databases import Databases
from outbox_relay.doctor.webhook_checks import check_webhooks
from outbox_relay.loop.relay import Relay
from shared.database.connections import connect
from shared.settings.smtp_server import SmtpServer
from shared.webhooks import endpoints
from shared.webhooks.signing import new_secret
from tests.consumer import handled_tasks
from tests.consumer.stages.processing.world import World
from tests.outbox_relay.commands.running import run
from tests.programs.api_service import ALICE, KEY, api_service
from tests.rows import add_message, add_user, message
from tests.servers.roles import with_role
from tests.servers.scripted_endpoint import ScriptedEndpoint, answering
from tests.settings.relay import open_relay, relay_settings

ROLES = Path(__file__).parents[2] / "docs" / "roles.sql"
TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own


@pytest.fixture
def granted_url(postgres: Databases, database_url: str) -> str:
    """A database whose tables have the grants; the address is the owner's."""
    name = urlsplit(database_url).path[1:]
    postgres.apply_schema(name, ROLES)
    postgres.apply_schema(name, ROLES)  # it may be run again
    return database_url


def test_a_signup_is_mailed_and_verified_with_four_roles(
    granted_url: str,
    redis_url: str,
    mailbox: MailCatcher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        connect(granted_url, "test") as owner,
        psycopg.connect(with_role(granted_url, "outbox_appender"), autocommit=True) as appender,
        api_service(with_role(granted_url, "outbox_api"), ops_token=TOKEN) as api,
        open_relay(relay_settings(with_role(granted_url, "outbox_relay"), redis_url, keep_done_days=0)) as relay,
        closing(World(with_role(granted_url, "outbox_worker"), mailbox.smtp_port)) as world,
    ):
        add_user(owner, "grace")
        assert api.client().get("/readyz").status_code == 200
        assert api.sign_up().status_code == 201
        bob = {**ALICE, "username": "bob", "email": "bob@example.com"}
        for status in (201, 201):
            key = {"Idempotency-Key": "one"}
            assert api.client().post("/v1/users", json=bob, headers=key).status_code == status
        assert api.client().post("/v1/verify_email/resend", json={"email": ALICE["email"]}).status_code == 202
        appender.execute(
            "INSERT INTO outbox (task, payload, queue, due_at, max_retries)"
            """ VALUES ('task:send_verify_email', '{"username": "grace"}', 'critical', now(), 3)"""
        )
        appender.execute("NOTIFY outbox_doorbell")

        assert relay.run_once().published == 3  # the second request became part of the first mail
        assert "not_pruned" not in capsys.readouterr().out
        ids = [row[0] for row in owner.execute("SELECT id FROM outbox ORDER BY id").fetchall()]
        assert [world.process(id_, secret_keys=(KEY,)).value for id_ in ids] == ["delivered"] * 3
        mails = mailbox.mails()
        assert {mail.recipients[0] for mail in mails} == {"alice@example.com", "bob@example.com", "grace@example.com"}
        link = next(mail.links[0] for mail in mails if mail.recipients[0] == "alice@example.com")
        assert api.client().post(f"/v1/{link.rpartition('/v1/')[2]}").json == {"is_verified": True}

        check_the_console(api.client(), owner)
        monkeypatch.setenv("DATABASE_URL", with_role(granted_url, "outbox_api"))
        assert [run(*command).exit_code for command in (("list",), ("show", ids[0]), ("dead",), ("stats",))] == [0] * 4
        assert relay.run_once().published == 2  # the welcome mail, and what was retried
        check_outages(world, relay, owner)
        check_a_handler(world, owner)

    with (
        open_relay(relay_settings(with_role(granted_url, "outbox_relay"), redis_url, unverified_days=0)) as relay,
        connect(granted_url, "test") as owner,
    ):
        owner.execute("DELETE FROM outbox WHERE status <> 'dead'; UPDATE verify_emails SET expires_at = now()")
        relay.run_once()
        assert owner.execute("SELECT username FROM users").fetchall() == [("alice",)]


def check_the_console(console: FlaskClient, owner: psycopg.Connection[Any]) -> None:
    dead = [add_message(owner, status="dead") for _ in range(2)]
    console.post("/ops/login", data={"token": TOKEN})
    form_key = console.get("/ops").text.partition('name="form_key" value="')[2].partition('"')[0]
    console.post(f"/ops/dead-letters/{dead[0]}/retry", data={"form_key": form_key})
    console.post(f"/ops/dead-letters/{dead[1]}/discard", data={"form_key": form_key, "reason": "x"})
    assert [message(owner, id_)["status"] for id_ in dead] == ["pending", "discarded"]
    assert "outbox_postgresql_up 1.0" in console.get("/metrics").text


def check_a_handler(world: World, owner: psycopg.Connection[Any]) -> None:
    owner.execute(f"{handled_tasks.EFFECTS}; GRANT INSERT ON effects TO outbox_worker")
    world.tasks = load_tasks([handled_tasks.MODULE])
    id_ = add_message(owner, handled_tasks.Act.task, {"do": "append"}, status="published")
    assert world.process(id_).value == "delivered"
    [(appended,)] = owner.execute("SELECT id FROM outbox WHERE task = %s", [handled_tasks.Write.task]).fetchall()
    assert world.process(appended).value == "delivered"


def check_outages(world: World, relay: Relay, owner: psycopg.Connection[Any]) -> None:
    """Open the breaker as a worker, send a probe as the relay, and close the breaker as the worker."""
    [(id_,)] = owner.execute("SELECT id FROM outbox WHERE status = 'published' LIMIT 1").fetchall()
    nobody = SmtpServer("smtp", "127.0.0.1", free_port())
    assert world.process(id_, smtp_server=nobody).value == "released"
    owner.execute("UPDATE outbox_destinations SET probe_at = now(); UPDATE outbox SET due_at = now()")
    assert relay.run_once().published == 1
    assert world.process(id_, secret_keys=(KEY,)).value == "delivered"
    assert owner.execute("SELECT opened_at FROM outbox_destinations").fetchone() == (None,)


def test_an_appender_needs_the_optional_grant_for_a_dedup_key(granted_url: str) -> None:
    append = """
        INSERT INTO outbox (task, payload, dedup_key) VALUES ('t', '{}', 'k')
            ON CONFLICT (task, dedup_key) WHERE dedup_key IS NOT NULL AND claimed_at IS NULL
            DO UPDATE SET payload = excluded.payload, due_at = least(outbox.due_at, excluded.due_at)
        RETURNING id
    """
    [optional] = re.findall(r"^-- (GRANT .* TO outbox_appender;)$", ROLES.read_text(), re.MULTILINE)
    with (
        psycopg.connect(granted_url, autocommit=True) as owner,
        psycopg.connect(with_role(granted_url, "outbox_appender"), autocommit=True) as appender,
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            appender.execute(append)
        owner.execute(optional.encode())
        assert [appender.execute(append).fetchone() for _ in range(2)] == [(1,), (1,)]
        owner.execute("REVOKE SELECT (payload) ON outbox FROM outbox_appender")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            appender.execute(append)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("outbox_appender", "SELECT FROM outbox"),
        ("outbox_appender", "INSERT INTO outbox (task, payload, status) VALUES ('t', '{}', 'dead')"),
        ("outbox_api", "SELECT url FROM webhook_endpoints"),
        ("outbox_api", "SELECT secret FROM webhook_secrets"),
        ("outbox_relay", "SELECT url FROM webhook_endpoints"),
        ("outbox_relay", "SELECT secret FROM webhook_secrets"),
        ("outbox_relay", "SELECT hashed_password FROM users"),
        ("outbox_relay", "UPDATE users SET is_email_verified = true"),
        ("outbox_relay", "SELECT email FROM verify_emails"),
        ("outbox_worker", "UPDATE users SET is_email_verified = true"),
        ("outbox_api", "DELETE FROM users"),
    ],
)
def test_no_role_may_do_what_it_need_not(granted_url: str, role: str, statement: LiteralString) -> None:
    with (
        psycopg.connect(with_role(granted_url, role)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_webhooks_need_no_more_than_the_grants(granted_url: str) -> None:
    with (
        ScriptedEndpoint(answering(204)) as receiver,
        connect(granted_url, "test") as owner,
        api_service(with_role(granted_url, "outbox_api")) as api,
        closing(World(with_role(granted_url, "outbox_worker"), free_port())) as world,
    ):
        url = f"http://{LOOPBACK}:{receiver.port}/"
        endpoints.add(owner, "shop", url, ["user.signed_up"], new_secret())
        for status, expected in ((204, "delivered"), (410, "released")):
            receiver.script = answering(status)
            assert api.sign_up(username=f"user{status}", email=f"user{status}@example.com").status_code == 201
            [(id_,)] = owner.execute("SELECT id FROM outbox WHERE task = 'task:deliver_webhook'").fetchall()
            assert world.process(id_, webhook_networks=(ip_network("127.0.0.0/8"),)).value == expected
        with connect(with_role(granted_url, "outbox_relay"), "test") as relay:
            assert "the endpoint shop is disabled" in next(check_webhooks(relay)).message
