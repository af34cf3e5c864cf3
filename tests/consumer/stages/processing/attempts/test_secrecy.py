"""Neither logs nor rows keep an address, a password or a link."""

import json
from collections.abc import Callable

import pytest

from consumer.task import Context, Mail
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import (
    KEY,
    VERIFY,
    Logs,
    MailTest,
    Row,
    World,
    raise_error,
    register,
    world_of,
)
from tests.rows import add_message
from tests.servers.scripted_mail_server import CONTENT, ScriptedMailServer


def break_the_unique_address(context: Context, _message: MailTest) -> Mail:
    context.connection.execute(
        "INSERT INTO users (username, email, full_name, hashed_password)"
        " SELECT 'b', email, full_name, hashed_password FROM users"
    )
    raise AssertionError


@pytest.mark.parametrize(
    "answers",
    [
        {"RCPT": "550 <wonder@land.example>: no such user wonder"},
        {"RCPT": "451 WONDER@LAND.EXAMPLE greylisted"},
        {CONTENT: "554 spam for wonder@land.example"},
        {CONTENT: "250-wonder@land.example"},
        {"MAIL": "550 not for wonder@land.example"},
    ],
)
def test_no_address_of_an_answer_is_kept(database_url: str, logs: Logs, answers: dict[str, str]) -> None:
    with ScriptedMailServer(answers) as server, world_of(database_url, server.port) as world:
        world.connection.execute("UPDATE users SET email = 'wonder@land.example', full_name = 'Wonder Woman'")
        add_message(world.connection)
        world.process(world.rows("SELECT id FROM outbox")[0]["id"], run_lease_seconds=3.0)

        assert_nothing_is_kept(world, logs)


@pytest.mark.parametrize(
    ("payload", "prepare"),
    [
        ({"username": ["wonder@land.example"]}, None),
        ({"username": "wonder@land.example"}, None),
        ({"username": "alice"}, break_the_unique_address),
        ({"username": "alice"}, raise_error),
    ],
)
def test_no_address_of_an_error_is_kept(
    world: World,
    logs: Logs,
    payload: Row,
    prepare: Callable[[Context, MailTest], Mail] | None,
) -> None:
    world.connection.execute("UPDATE users SET email = 'wonder@land.example', full_name = 'Wonder Woman'")
    task = VERIFY if prepare is None else register(world, prepare)

    world.process(add_message(world.connection, task, payload))

    assert_nothing_is_kept(world, logs)


def test_no_password_and_no_link_is_kept(world: World, mailbox: MailCatcher, logs: Logs) -> None:
    login = SmtpServer("smtp", LOOPBACK, mailbox.smtp_port, "wonder", "land")
    world.process(add_message(world.connection), smtp_server=login)
    nowhere = f"postgresql://wonder:land@{LOOPBACK}:{free_port()}/x"
    world.process(add_message(world.connection), database_url=nowhere, run_lease_seconds=0.3)
    world.connection.execute("UPDATE outbox_destinations SET opened_at = NULL, probe_at = NULL")
    world.process(add_message(world.connection))

    [mail] = mailbox.mails()
    code = mail.links[0].partition("secret_code=")[2]
    assert_nothing_is_kept(world, logs, code)


def assert_nothing_is_kept(world: World, logs: Logs, *more: str) -> None:
    kept = json.dumps([logs, world.rows("SELECT last_error, failures FROM outbox_messages")], default=str).lower()
    breaker = json.dumps(world.breaker(), default=str).lower()

    assert logs
    assert [word for word in ("wonder", "land", KEY, *more) if word.lower() in kept + breaker] == []
