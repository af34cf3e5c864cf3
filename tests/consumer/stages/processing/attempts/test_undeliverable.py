"""Messages that can never be delivered become dead letters at once."""

import pytest

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.processing.world import VERIFY, WELCOME, World, last_failure
from tests.rows import add_message, add_user


@pytest.mark.parametrize(
    ("task", "payload", "reason"),
    [
        (VERIFY, "[]", "the payload is malformed: it is not a JSON object"),
        (VERIFY, '"alice"', "the payload is malformed: it is not a JSON object"),
        (VERIFY, "null", "the payload is malformed: it is not a JSON object"),
        (VERIFY, "5", "the payload is malformed: it is not a JSON object"),
        (VERIFY, "{}", "the payload is malformed: {'username': ['Missing data for required field.']}"),
        (VERIFY, '{"username": 5}', "the payload is malformed: {'username': ['Not a valid string.']}"),
        (VERIFY, '{"username": null}', "the payload is malformed: {'username': ['Field may not be null.']}"),
        (VERIFY, '{"username": ["alice"]}', "the payload is malformed: {'username': ['Not a valid string.']}"),
        (VERIFY, '{"username": ""}', "the user in the payload does not exist or was deleted"),
        (
            VERIFY,
            f'{{"username": "alice", "n": {"9" * 5000}}}',
            "the payload is malformed: a number is too long, or it is nested too deeply",
        ),
        (
            VERIFY,
            f'{{"username": "alice", "n": {"[" * 2000}{"]" * 2000}}}',
            "the payload is malformed: a number is too long, or it is nested too deeply",
        ),
        (VERIFY, '{"username": "gone"}', "the user in the payload does not exist or was deleted"),
        (WELCOME, '{"username": "gone"}', "the user in the payload does not exist or was deleted"),
    ],
)
def test_an_undeliverable_message_is_dead_at_once(
    world: World, mailbox: MailCatcher, task: str, payload: str, reason: str
) -> None:
    id_ = add_message(world.connection, task)
    world.connection.execute("UPDATE outbox SET payload = %s::jsonb WHERE id = %s", [payload, id_])

    assert world.process(id_) is Disposition.DEAD

    [row] = world.rows("SELECT status, attempt, generation, last_error, failures FROM outbox")
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("dead", 1, 0, reason)
    assert [last_failure(row)] == [(1, reason, False)]
    assert (len(row["failures"]), mailbox.mails(), world.records()) == (1, [], [])


def test_a_field_of_a_later_version_is_ignored(world: World) -> None:
    id_ = add_message(world.connection, payload={"username": "alice", "locale": "en"})

    assert world.process(id_) is Disposition.DELIVERED


def test_a_mail_to_an_unusable_address_is_dead_at_once(world: World) -> None:
    add_user(world.connection, "bob", email="bob")
    id_ = add_message(world.connection, payload={"username": "bob"})

    assert world.process(id_) is Disposition.DEAD

    assert world.message(id_)["last_error"] == "the user's address or name cannot be written in a mail's header"
