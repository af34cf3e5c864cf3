"""A second attempt sends a copy of the same mail."""

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.processing.world import World
from tests.rows import add_message


def test_a_second_copy_has_the_same_message_id_and_link_and_a_longer_life(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    mailbox.set_fault("drop-after-accept")
    world.process(id_)
    [first] = world.records()
    world.connection.execute("UPDATE verify_emails SET used_at = now()")
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Disposition.DELIVERED

    [second] = world.records()
    copies = mailbox.mails()
    assert len(copies) == 2
    assert len({mail.message["Message-ID"] for mail in copies}) == 1
    assert len({link for mail in copies for link in mail.links}) == 1
    assert (second["id"], second["expires_at"] > first["expires_at"]) == (first["id"], True)
    assert second["used_at"] is not None


def test_an_address_that_changed_in_between_gets_another_link(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    mailbox.set_fault("drop-after-accept")
    world.process(id_)
    world.connection.execute("UPDATE verify_emails SET used_at = now()")
    world.connection.execute("UPDATE users SET email = 'new@example.com'")
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Disposition.DELIVERED

    [record] = world.records()
    assert (record["email"], record["used_at"]) == ("new@example.com", None)
    assert [mail.recipients for mail in mailbox.mails()] == [("alice@example.com",), ("new@example.com",)]
    assert len({link for mail in mailbox.mails() for link in mail.links}) == 2
