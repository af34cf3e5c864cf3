"""What ends a relay's sleep: polls, notifications, messages that become due."""

from outbox_relay.loop.pacing import Pacing
from shared.database.connections import connect
from tests.outbox_relay.loop.running import (
    LONG_POLL,
    RecordedPause,
    add,
    is_published,
    listens,
    notify,
    running,
    settings,
)
from tests.rows import add_message
from tests.waiting import wait_until


def test_a_message_is_found_by_polling(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url, poll_seconds=0.05)):
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_a_notification_wakes_a_sleeping_relay(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL)):
        wait_until(lambda: listens(database_url), 5, "the relay to listen")
        id_ = add(database_url)
        notify(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_a_sleeping_relay_wakes_for_the_next_message_that_becomes_due(database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        id_ = add_message(connection)
        connection.execute("UPDATE outbox SET due_at = now() + interval '1 s'")

    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL)):
        wait_until(is_published(database_url, id_), 10, "the message to be published")


def test_no_sleep_is_longer_than_the_time_between_two_heartbeats(database_url: str, redis_url: str) -> None:
    gathering = RecordedPause()
    chosen = settings(database_url, redis_url, poll_seconds=LONG_POLL)
    with running(chosen, pacing=Pacing(beat_seconds=0.05), gathering=gathering):
        wait_until(lambda: "nothing is due" in gathering.calls, 10, "the relay to sleep")
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_a_lost_listener_leaves_polling_alone_at_work(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url)) as relay:
        wait_until(lambda: listens(database_url), 5, "the relay to listen")
        with connect(database_url, "test") as connection:
            connection.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'outbox-relay-listener'
                """
            )
        wait_until(lambda: relay.events("listener.disconnected"), 5, "the relay to notice")
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")
        assert relay.outages() == []


def test_messages_gather_after_a_small_batch_until_nothing_is_due(database_url: str, redis_url: str) -> None:
    gathering = RecordedPause()
    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL), gathering=gathering):
        wait_until(lambda: gathering.calls and listens(database_url), 10, "the relay to sleep")
        add(database_url)
        notify(database_url)
        wait_until(lambda: gathering.calls[-2:] == ["gather", "nothing is due"], 10, "the relay to publish and sleep")
