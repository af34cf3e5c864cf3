"""Which answers of a mail server let the recipient's account expire."""

from collections.abc import Iterator

import pytest

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import World, world_of
from tests.outbox_relay.loop.expiry.accounts import accounts, days_ago, expire
from tests.rows import add_message
from tests.servers.scripted_mail_server import ScriptedMailServer


@pytest.fixture
def world(database_url: str, mailbox: MailCatcher) -> Iterator[World]:
    with world_of(database_url, mailbox.smtp_port) as opened:
        opened.connection.execute("UPDATE users SET created_at = %s", [days_ago(9)])
        yield opened


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        ("550 5.1.1 no such user", False),
        ("556 5.1.10 this domain takes no mail", False),
        ("550 no", True),
        ("550 5.5.0 no", True),
        ("554 5.7.1 relay access denied", True),
        ("450 4.1.1 not yet", True),
        ("250 OK", True),
    ],
)
def test_only_a_recipient_that_does_not_exist_lets_its_account_go(world: World, answer: str, *, is_kept: bool) -> None:
    id_ = add_message(world.connection, status="published", attempt=10)
    with ScriptedMailServer({"RCPT": answer}) as server:
        world.process(id_, smtp_server=SmtpServer("smtp", LOOPBACK, server.port))
    world.connection.execute("UPDATE verify_emails SET expires_at = %s", [days_ago(7.5 if "250" not in answer else 6)])

    assert (expire(world.connection), accounts(world.connection)) == ((0, {"alice"}) if is_kept else (1, set()))
