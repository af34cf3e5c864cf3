"""A process keeps its prepared statements for weeks: their plans have to hold for an outbox of any length."""

from collections import Counter
from contextlib import closing
from uuid import uuid4

from rq.defaults import RQ_KEY_PREFIX
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from api.accounts.signup_state import state_statement
from consumer.stages.recording import busy_server
from embedded.mail.catcher import MailCatcher
from outbox_relay.broker import open_broker
from outbox_relay.loop.maintenance.expiry import AccountExpiry
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import DbConnection, connect, keep_plans, transaction
from shared.outbox import discovery, publishing, reaping
from shared.outbox.claiming import claims as consumer_statements
from shared.outbox.claiming import policy_refusals
from shared.outbox.claiming.policy_refusals import Refusal
from shared.outbox.discovery import AFTER_ALL_NAMES, CURSOR_AT_START, Range, Source
from shared.outbox.publishing import Wanted
from tests.consumer.stages.processing.world import World
from tests.rows import (
    add_message,
    add_user,
    history_rows_read,
    open_breaker,
    rows_read_by_index,
    rows_read_one_after_the_other,
)
from tests.settings.relay import relay_settings
from tests.taking import take_jobs

# psycopg prepares a statement at its sixth execution, PostgreSQL makes the plan that it keeps at the sixth from then.
UNTIL_A_PLAN_IS_KEPT = 15

SOURCES = [Source("critical", name) for name in ("", "mail", "blocked")]


def deliver_one(connection: DbConnection) -> int:
    """Take one message the whole way, with the statements of relay and worker."""
    with transaction(connection):
        ids = [row.id for row in take_jobs(connection, 1)]
        publishing.mark_published(connection, ids, "epoch", 30)
    with transaction(connection):
        claims = consumer_statements.claim(connection, ids, uuid4(), 60)
    with transaction(connection):
        return len(consumer_statements.ack(connection, claims))


def add_messages(connection: DbConnection, count: int) -> None:
    connection.execute(
        "INSERT INTO outbox (task, payload, queue, destination)"
        " SELECT 't', '{}', 'critical', 'mail' FROM generate_series(1, %s)",
        [count],
    )


def test_plans_that_were_made_for_a_nearly_empty_outbox_read_no_full_one_from_end_to_end(database_url: str) -> None:
    with connect(database_url, "test") as others:
        others.execute("VACUUM ANALYZE outbox")
        add_messages(others, UNTIL_A_PLAN_IS_KEPT)

        with connect(database_url, "a worker of weeks") as long_lived:
            keep_plans(long_lived)
            idle = [deliver_one(long_lived) for _ in range(UNTIL_A_PLAN_IS_KEPT)]
            add_messages(others, 5000)
            busy = [deliver_one(long_lived) for _ in range(3)]
            read = rows_read_one_after_the_other(long_lived)

    assert (set(idle), set(busy), read) == ({1}, {1}, 0)


def test_one_destination_is_found_and_taken_without_reading_the_messages_of_others(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        connection.execute("VACUUM ANALYZE outbox, outbox_destinations")

        def find_and_take() -> int:
            found = discovery.discover(
                connection, dict.fromkeys(SOURCES, CURSOR_AT_START), [Range("critical", "mail", AFTER_ALL_NAMES)]
            )
            with transaction(connection):
                wanted = [Wanted(head.source, head.cursor, 1) for head in found.heads]
                return sum(len(part.jobs) for part in publishing.take_batch(connection, wanted))

        idle = [find_and_take() for _ in range(UNTIL_A_PLAN_IS_KEPT)]
        connection.execute(
            """
            INSERT INTO outbox (task, payload, queue, destination)
            SELECT 't', '{}', 'critical', (ARRAY['blocked', 'mail', 'webhook:1'])[1 + n % 3]
              FROM generate_series(1, 9000) AS n
            """
        )
        open_breaker(connection, "blocked")
        connection.execute(
            "INSERT INTO outbox_destinations (name, max_per_second)"
            " SELECT 'limited' || n, 1 FROM generate_series(1, 3000) AS n"
        )
        connection.execute("ANALYZE outbox_destinations")
        before, states_before = rows_read_by_index(connection), states_read(connection)

        busy = [find_and_take() for _ in range(3)]

        assert (set(idle), busy) == ({0}, [2, 2, 2])
        assert rows_read_by_index(connection) - before < 50
        assert states_read(connection) - states_before < 50
        assert scans(connection)["outbox"] + scans(connection)["outbox_destinations"] == 0


def test_the_statements_of_each_batch_are_not_planned_again(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        connection.execute("VACUUM ANALYZE outbox, outbox_destinations")
        add_messages(connection, 5000)
        for _ in range(2 * UNTIL_A_PLAN_IS_KEPT):
            discovery.discover(connection, dict.fromkeys(SOURCES, CURSOR_AT_START), [Range("critical", "mail", "~")])
            take_jobs(connection, 1)
        planned = connection.execute(
            "SELECT custom_plans FROM pg_prepared_statements WHERE statement LIKE '%coalesce(destination%'"
        ).fetchall()

    assert planned == [(5,), (5,)]


def states_read(connection: DbConnection) -> int:
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_destinations_pkey'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_looking_for_lost_jobs_reads_no_row_whose_lease_still_runs(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        connection.execute("VACUUM ANALYZE outbox")
        connection.execute(
            """
            INSERT INTO outbox (task, payload, queue, status, broker_epoch, published_at, lease_until)
            SELECT 't', '{}', 'critical', 'published', 'epoch', now(), now() + interval '1 hour'
              FROM generate_series(1, 5000)
            """
        )
        before = rows_read_by_index(connection)
        found = [reaping.find_lease_expired(connection, "epoch", 100) for _ in range(UNTIL_A_PLAN_IS_KEPT)]

        assert found == [[]] * UNTIL_A_PLAN_IS_KEPT
        assert rows_read_by_index(connection) == before


def test_no_statement_of_relay_and_worker_reads_a_table_from_end_to_end(
    connection: DbConnection, redis_url: str, mailbox: MailCatcher
) -> None:
    # A plan with a scan that cannot be avoided is dear however small the table, so that a server with JIT compiles it.
    url = connection.info.dsn
    add_user(connection)
    mailed = add_message(connection, queue="critical")
    before = scans(connection)

    with closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker:
        relay = Relay(relay_settings(url, redis_url), broker, wakeup := WakeupPipe())
        assert relay.drain() == 1
        relay.run_once()
        relay.close()
        wakeup.close()
    world = World(url, mailbox.smtp_port)
    assert world.process(mailed).value == "delivered"
    world.close()

    # Who else shows itself is looked up among the few relays, every five seconds.
    assert scans(connection) - before - Counter(outbox_relays=1) == Counter()


def scans(connection: DbConnection) -> Counter[str]:
    connection.execute("SELECT pg_stat_force_next_flush()")
    rows = connection.execute("SELECT relname, seq_scan FROM pg_stat_user_tables").fetchall()
    return Counter(dict(rows))


def test_a_probe_and_a_refusal_by_policy_read_no_full_outbox(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        connection.execute("VACUUM ANALYZE outbox")
        add_messages(connection, 5000)
        open_breaker(connection, probe_in_seconds=-1)
        before = rows_read_by_index(connection)

        for _ in range(UNTIL_A_PLAN_IS_KEPT):
            assert len(publishing.take_probe(connection)) == 1
            policy_refusals.read_policy_status(connection)
            policy_refusals.return_attempts(connection, [Refusal(1, 0, 1, 1, "recipient", "domain", "5.7.1", 0.0)])

        assert rows_read_by_index(connection) - before < 10 * UNTIL_A_PLAN_IS_KEPT
        assert rows_read_one_after_the_other(connection) == 0


def test_a_refusal_by_policy_reads_no_message_of_another_destination(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        add_user(connection)
        connection.execute("VACUUM ANALYZE outbox")
        connection.execute(
            "INSERT INTO outbox (task, payload, queue, destination)"
            " SELECT 't', '{\"username\": \"alice\"}', 'default', 'webhook:1' FROM generate_series(1, 5000)"
        )
        before = rows_read_by_index(connection)

        waits = [policy_refusals.another_domain_waits(connection, "a.example") for _ in range(UNTIL_A_PLAN_IS_KEPT)]
        read = rows_read_by_index(connection) - before
        add_message(connection)

        assert (set(waits), read) == ({False}, 0)
        assert rows_read_one_after_the_other(connection) == 0
        assert policy_refusals.another_domain_waits(connection, "a.example")


def test_a_refusal_for_now_reads_no_history_but_the_last_seconds(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        add_history(connection, 5000, "-1 hour")
        # Of a clock that was set back since then.
        add_history(connection, 5000, "1 hour")
        connection.execute("VACUUM ANALYZE outbox_finished")
        before = history_rows_read(connection)

        serves = [busy_server.serves_others(connection) for _ in range(UNTIL_A_PLAN_IS_KEPT)]
        for _ in range(UNTIL_A_PLAN_IS_KEPT):
            policy_refusals.read_policy_status(connection)

        assert set(serves) == {False}
        assert history_rows_read(connection) - before <= UNTIL_A_PLAN_IS_KEPT


def test_expiring_an_account_reads_no_other_row_of_many_accounts_and_messages(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        keep_plans(connection)
        connection.execute("VACUUM ANALYZE outbox, users, verify_emails")
        add_accounts(connection, 3000)
        before = rows_read_by_index(connection)
        expiries = [AccountExpiry(7) for _ in range(UNTIL_A_PLAN_IS_KEPT)]

        deleted = [each.step(connection).deleted for each in expiries]

        # Each of the oldest 100 has a mail ahead, but one that goes.
        assert deleted == [1] + [0] * (UNTIL_A_PLAN_IS_KEPT - 1)
        assert rows_read_by_index(connection) - before <= 2 * 101 * UNTIL_A_PLAN_IS_KEPT
        assert rows_read_one_after_the_other(connection) == 0
        assert (scans(connection)["users"], scans(connection)["verify_emails"]) == (0, 0)


def add_accounts(connection: DbConnection, count: int) -> None:
    """Add old accounts, each with a link, and all but one of them with a mail that waits."""
    connection.execute(
        """
        WITH account AS (
            INSERT INTO users (username, email, full_name, hashed_password, created_at)
            SELECT 'user_' || number, number || '@example.com', '', '', to_timestamp(number)
              FROM generate_series(1, %s) AS number
            RETURNING username, email
        ), link AS (
            INSERT INTO verify_emails (username, email, message_id, expires_at)
            SELECT username, email, row_number() OVER (), now() - interval '1 year' FROM account
        )
        INSERT INTO outbox (task, payload)
        SELECT 'task:send_verify_email', jsonb_build_object('username', username)
          FROM account
         WHERE username <> 'user_7'
        """,
        [count],
    )


def add_history(connection: DbConnection, count: int, finished_in: str) -> None:
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT (SELECT coalesce(max(id), 0) FROM outbox_finished) + number, 't', '{}', 'critical', 'done', now(), 0, 1,
               10, '[]', now() - interval '2 hours', now() + %s::interval
          FROM generate_series(1, %s) AS number
        """,
        [finished_in, count],
    )


def test_state_of_a_signup_reads_the_sent_mails_of_its_mailbox_alone(database_url: str) -> None:
    statement = state_statement().compile(dialect=PGDialect_psycopg())
    with connect(database_url, "test") as connection:
        connection.execute(
            "INSERT INTO verification_mails (message_id, mailbox_hmac, address_hmac, state, due_at)"
            " SELECT n, sha256(n::text::bytea), 'a', 'prompt', now() FROM generate_series(1, 5000) AS n"
        )
        connection.execute("ANALYZE verification_mails")
        rows = connection.execute(f"EXPLAIN {statement}", {**statement.params, "of_mailboxes": [b"m"]}).fetchall()

    scans = [line for (line,) in rows if " on verification_mails" in line]
    assert [line for line in scans if "Seq Scan" in line] == []
    assert any("verification_mails_mailbox_idx" in line for line in scans)
