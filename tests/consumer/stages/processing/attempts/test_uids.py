"""A mail's Message-ID is the message's uid: equal for all its copies, and different for every other message."""

import subprocess
from typing import Any
from uuid import UUID

import psycopg
import pytest

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from embedded.servers.databases import Databases
from embedded.servers.postgres_files import binaries
from shared.outbox.operations import dead_letters
from tests.conftest import SCHEMA
from tests.consumer.stages.processing.world import KEY, World, world_of
from tests.rows import add_message


def message_ids(mailbox: MailCatcher) -> list[str]:
    return [str(mail.message["Message-ID"]) for mail in mailbox.mails()]


def name_of(row: dict[str, Any]) -> str:
    assert isinstance(row["uid"], UUID)
    return f"<{row['uid']}@example.org>"


def test_two_databases_with_equal_ids_and_keys_send_different_message_ids(
    world: World, mailbox: MailCatcher, empty_database_url: str, postgres: Databases
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        postgres.apply_schema(connection.info.dbname, SCHEMA)
    with world_of(empty_database_url, mailbox.smtp_port) as other:
        ids = [add_message(each.connection) for each in (world, other)]

        dispositions = [each.process(id_) for each, id_ in zip((world, other), ids, strict=True)]

    assert ids[0] == ids[1]
    assert dispositions == [Disposition.DELIVERED] * 2
    assert len(set(message_ids(mailbox))) == 2


def test_a_key_rotated_between_two_attempts_does_not_change_the_message_id(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    mailbox.set_fault("drop-after-accept")
    assert world.process(id_) is Disposition.FAILED
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_, secret_keys=("another key, with 32 characters or more", KEY)) is Disposition.DELIVERED

    assert message_ids(mailbox) == [name_of(world.message(id_))] * 2


@pytest.mark.parametrize("first_fault", [None, "drop-after-accept"], ids=["sent once", "sent before the dump"])
def test_a_restored_dump_shares_no_later_message_id_with_its_origin(
    world: World, mailbox: MailCatcher, empty_database_url: str, first_fault: str | None
) -> None:
    waiting = add_message(world.connection)
    if first_fault:
        mailbox.set_fault(first_fault)
        world.process(waiting)
        mailbox.set_fault(None)
        world.make_due(waiting)
    before = message_ids(mailbox)
    dump = subprocess.run(
        [binaries() / "pg_dump", "-Fc", world.settings.database_url], capture_output=True, check=True
    ).stdout
    subprocess.run(
        [binaries() / "pg_restore", "-e", "--clean", "--if-exists", "-d", empty_database_url], input=dump, check=True
    )
    restored = World(empty_database_url, mailbox.smtp_port)
    try:
        for each in (world, restored):
            assert each.process(waiting) is Disposition.DELIVERED
            assert each.process(add_message(each.connection)) is Disposition.DELIVERED
    finally:
        restored.close()

    # The message in the dump is the same in both databases, and so are the Message-IDs of its copies.
    [shared, *rest] = before + message_ids(mailbox)[len(before) :]
    assert [name == shared for name in (shared, *rest)] == [True] * (len(before) + 1) + [False, True, False]
    assert len(set(rest) - {shared}) == 2


def test_the_claim_gives_a_message_without_a_uid_one_for_good(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, uid=None)
    mailbox.set_fault("drop-after-accept")
    world.process(id_)
    first = world.message(id_)
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Disposition.DELIVERED

    assert world.message(id_)["uid"] == first["uid"]
    assert message_ids(mailbox) == [name_of(first)] * 2


def test_a_dead_letter_keeps_its_uid_when_it_is_retried_and_when_it_is_discarded(world: World) -> None:
    id_ = add_message(world.connection, status="dead")
    before = world.message(id_)["uid"]
    assert dead_letters.retry(world.connection, id_)
    assert world.message(id_)["uid"] == before

    assert dead_letters.discard(world.connection, id_, "a test")

    assert world.message(id_)["uid"] == before
