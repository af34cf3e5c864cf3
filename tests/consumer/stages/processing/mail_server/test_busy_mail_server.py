"""A busy mail server is available while it serves others, and a message that it always refuses ends."""

from datetime import UTC, datetime, timedelta

import pytest

from consumer.model.results import Disposition
from tests.consumer.stages.processing.world import Logs, world_of
from tests.rows import add_message
from tests.servers.scripted_mail_server import GREETING, HANG_UP, ScriptedMailServer, Session

OTHER = "other@example.com"


def refuse_alice(session: Session) -> str:
    return "250 OK" if session.recipient == OTHER else "450 4.7.1 not now"


def test_a_refused_connection_opens_no_breaker_while_another_worker_is_served(database_url: str, logs: Logs) -> None:
    greetings = iter(["220 scripted", f"421 4.7.0 too many connections {HANG_UP}"])
    with (
        ScriptedMailServer({GREETING: lambda _: next(greetings)}) as server,
        world_of(database_url, server.port) as world,
    ):
        served, refused = add_message(world.connection), add_message(world.connection)

        dispositions = [world.process(served), world.process(refused)]

        row = world.message(refused)
        is_waiting = world.rows("SELECT due_at > clock_timestamp() AS later FROM outbox")[0]["later"]
        assert dispositions == [Disposition.DELIVERED, Disposition.RELEASED]
        assert (row["attempt"], row["failures"], world.breaker()["opened_at"], is_waiting) == (0, [], None, True)
    assert [line for line in logs if line["event"] == "destination.unavailable"] == []


def test_a_refused_connection_is_an_outage_when_no_worker_is_served(database_url: str) -> None:
    with (
        ScriptedMailServer({GREETING: f"421 4.7.0 too many connections {HANG_UP}"}) as server,
        world_of(database_url, server.port) as world,
    ):
        add_message(world.connection)
        world.process(world.rows("SELECT id FROM outbox")[0]["id"])

        assert world.breaker()["opened_at"] is not None


OLD = [(Disposition.RELEASED, 0), (Disposition.FAILED, 1), (Disposition.FAILED, 2)]
YOUNG = [(Disposition.RELEASED, 0)] * 3


@pytest.mark.parametrize(("minutes", "expected"), [(61, OLD), (50, YOUNG)])
def test_a_message_that_is_always_refused_spends_attempts_after_an_hour_if_others_are_accepted(
    database_url: str, minutes: int, expected: list[tuple[Disposition, int]]
) -> None:
    with ScriptedMailServer({"RCPT": refuse_alice}) as server, world_of(database_url, server.port) as world:
        world.connection.execute(
            "INSERT INTO users (username, email, full_name, hashed_password) VALUES ('other', %s, 'Other', '!')",
            [OTHER],
        )
        id_ = add_message(world.connection, created_at=datetime.now(UTC) - timedelta(minutes=minutes))

        seen = []
        for _ in range(3):
            seen.append((world.process(id_), world.message(id_)["attempt"]))
            world.connection.execute(
                "UPDATE outbox_destinations SET opened_at = NULL, probe_at = NULL, probe_id = NULL, outages = 0"
            )
            world.connection.execute("UPDATE outbox SET due_at = clock_timestamp() WHERE id = %s", [id_])
            other = add_message(world.connection, payload={"username": "other"})
            assert world.process(other) is Disposition.DELIVERED

    assert seen == expected
