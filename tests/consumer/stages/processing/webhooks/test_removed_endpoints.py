"""Webhooks to endpoints that were removed, or that never existed."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import NullPool, create_engine

from api.accounts.mail_limits.statements import MailShape
from api.accounts.signup import signup_statement
from consumer.model.results import Disposition
from consumer.tasks.deliver_webhook import TASK
from embedded.programs.ports import LOOPBACK
from tests.consumer.stages.processing.webhooks.events import (
    add_endpoint,
    add_webhook,
    process,
)
from tests.consumer.stages.processing.world import World
from tests.outbox_relay.commands.running import run_json
from tests.servers.scripted_endpoint import ScriptedEndpoint, answering

SIGNUP = {
    "username": "bob",
    "full_name": "Bob",
    "email": "bob@example.com",
    "hashed_password": "x",
    **dict.fromkeys(("mailbox_hmac", "address_hmac", "client_hmac"), b"x" * 32),
    "mail_state": "prompt",
    "mail_due_at": datetime(2026, 1, 1, tzinfo=UTC),
}


def test_an_event_for_an_endpoint_that_was_removed_is_discarded(world: World) -> None:
    with ScriptedEndpoint(answering(200)) as server:
        endpoint = add_endpoint(world, server.port)
        early = add_webhook(world, endpoint)
        world.connection.execute("UPDATE webhook_endpoints SET removed_at = now(), name = 'former'")
        assert process(world, early) is Disposition.DISCARDED
        world.connection.execute("DELETE FROM webhook_endpoints")
        successor = add_endpoint(world, server.port)
        late = add_webhook(world, endpoint)
        assert process(world, late) is Disposition.DISCARDED

    assert successor != endpoint
    assert server.requests == []
    assert world.message(late)["last_error"] == "discarded: the endpoint was removed"


@pytest.mark.parametrize("endpoint_id", [0, -1, 2**80])
def test_an_id_that_no_endpoint_can_have_is_discarded(world: World, endpoint_id: int) -> None:
    id_ = add_webhook(world, endpoint_id, destination="webhook:1")

    assert process(world, id_) is Disposition.DISCARDED


def test_an_endpoint_that_is_removed_and_added_again_while_a_signup_commits_gets_nothing_of_it(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with ScriptedEndpoint(answering(204)) as former, ScriptedEndpoint(answering(204)) as present:
        former_id = run_json("webhooks", "add", "shop", f"http://{LOOPBACK}:{former.port}/")["id"]
        run_json("webhooks", "disable", "shop", "--reason", "they move")
        with engine.begin() as signup:
            signup.execute(signup_statement(MailShape()), SIGNUP)
            assert run_json("webhooks", "remove", "shop", "--yes")["discarded"] == 0
            present_id = run_json("webhooks", "add", "shop", f"http://{LOOPBACK}:{present.port}/")["id"]
        [row] = world.rows("SELECT id, destination FROM outbox WHERE task = %s", [TASK.name])
        assert row["destination"] == f"webhook:{former_id}" != f"webhook:{present_id}"
        assert process(world, row["id"]) is Disposition.DISCARDED
        assert (former.requests, present.requests) == ([], [])
