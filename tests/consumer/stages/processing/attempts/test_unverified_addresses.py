"""What a mail to an unverified address contains: it may be a stranger's."""

from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.processing.world import WELCOME, World
from tests.rows import add_message

TEXT = "You won: https://evil.example/claim"


def test_mail_to_an_unverified_address_repeats_nothing_but_the_username(world: World, mailbox: MailCatcher) -> None:
    world.connection.execute("UPDATE users SET full_name = %s", [TEXT])

    world.process(add_message(world.connection))

    [mail] = mailbox.mails()
    [reader] = mail.message["To"].addresses
    assert (reader.display_name, mail.subject) == ("", "Verify your email address")
    shown = [*map(str, mail.message.values()), mail.text, mail.html]
    assert [word for word in (TEXT, "won", "evil", "claim") for text in shown if word in text] == []
    assert "alice" in mail.text
    assert "alice" in mail.html


def test_mail_after_the_verification_greets_by_name(world: World, mailbox: MailCatcher) -> None:
    world.connection.execute("UPDATE users SET full_name = 'Alice Adams', is_email_verified = true")

    world.process(add_message(world.connection, WELCOME))

    [mail] = mailbox.mails()
    [reader] = mail.message["To"].addresses
    assert reader.display_name == "Alice Adams"
    assert "Welcome, Alice Adams" in mail.text
    assert "Welcome, Alice Adams" in mail.html
