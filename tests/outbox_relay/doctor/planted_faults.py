"""Faults for a healthy installation, one function each."""

import os
import secrets
from datetime import UTC, datetime
from urllib.parse import urlsplit

from rq.suspension import suspend

from embedded.programs.ports import free_port
from tests.addresses import with_login
from tests.outbox_relay.doctor.installation import Installation, schema_of
from tests.redis_keys import KEYS
from tests.rows import add_message, open_breaker
from tests.servers.roles import with_role


def a_missing_index(at: Installation) -> None:
    at.sql("DROP INDEX outbox_due_idx")


def a_missing_column(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP COLUMN last_error CASCADE")


def a_changed_constraint(at: Installation) -> None:
    at.sql("ALTER TABLE outbox_finished DROP CONSTRAINT outbox_finished_status")
    at.sql("ALTER TABLE outbox_finished ADD CONSTRAINT outbox_finished_status CHECK (status <> '')")


def a_missing_rule(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_known")


def a_rule_that_no_row_was_held_against(at: Installation) -> None:
    at.sql("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_known")
    at.sql("ALTER TABLE outbox ADD CONSTRAINT outbox_queue_known CHECK (queue IN ('critical', 'default')) NOT VALID")


def no_schema(at: Installation) -> None:
    at.sql("DROP TABLE outbox CASCADE")


def commits_that_are_not_on_disk(at: Installation) -> None:
    at.sql(f"ALTER DATABASE {at.connection.info.dbname} SET synchronous_commit = off")


def no_autovacuum(at: Installation) -> None:
    at.sql("ALTER TABLE outbox SET (autovacuum_enabled = false)")


def postgresql_away(at: Installation) -> None:
    at.set("DATABASE_URL", f"postgresql://postgres@127.0.0.1:{free_port()}/outbox")


def no_such_database(at: Installation) -> None:
    at.set("DATABASE_URL", urlsplit(os.environ["DATABASE_URL"])._replace(path="/nothing_here").geturl())


def a_name_that_does_not_resolve(at: Installation) -> None:
    at.set("DATABASE_URL", "postgresql://nobody.invalid/outbox")


def no_grant(at: Installation) -> None:
    at.sql("CREATE ROLE without_grants LOGIN")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], "without_grants"))


def no_usage_of_the_schema(at: Installation) -> None:
    schema = schema_of(at)
    role = f"without_usage_{secrets.token_hex(4)}"
    at.sql(f"CREATE ROLE {role} LOGIN")
    at.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    at.sql(f"REVOKE USAGE ON SCHEMA {schema} FROM public")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], role))


def a_redis_that_lets_us_do_nothing(at: Installation) -> None:
    at.redis.acl_setuser("relay", enabled=True, passwords=["+hunter2"], commands=["+ping"])
    at.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "relay:hunter2"))


def a_postgresql_that_takes_no_writes(at: Installation) -> None:
    a_relay_that_fell_silent(at)
    at.sql(f"ALTER DATABASE {at.connection.info.dbname} SET default_transaction_read_only = on")


def a_role_without_a_grant(at: Installation) -> None:
    role = f"relay_{secrets.token_hex(4)}"
    at.sql(f"CREATE ROLE {role} LOGIN")
    at.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_of(at)} TO {role}")
    at.sql(f"REVOKE UPDATE, DELETE ON outbox_finished FROM {role}")
    at.set("DATABASE_URL", with_role(os.environ["DATABASE_URL"], role))


def redis_away(at: Installation) -> None:
    at.set("RQ_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")


def a_redis_that_evicts(at: Installation) -> None:
    at.redis.config_set("maxmemory-policy", "allkeys-lru")


def a_redis_that_is_a_replica(at: Installation) -> None:
    at.redis.replicaof("127.0.0.1", free_port())


def no_worker_for_default(at: Installation) -> None:
    at.redis.delete(KEYS.workers_of("default"))


def suspended_workers(at: Installation) -> None:
    suspend(at.redis)


def workers_suspended_for_a_while(at: Installation) -> None:
    suspend(at.redis, 600)


def a_queue_that_is_no_list(at: Installation) -> None:
    at.redis.set(KEYS.queue("critical"), "somebody else's")


def mail_server_away(at: Installation) -> None:
    at.set("SMTP_URL", f"smtp://127.0.0.1:{free_port()}")


def an_open_breaker(at: Installation) -> None:
    open_breaker(at.connection, last_error="421 busy")


def a_relay_that_fell_silent(at: Installation) -> None:
    at.sql("UPDATE outbox_relays SET seen_at = now() - interval '5 minutes'")


def a_short_secret(at: Installation) -> None:
    at.set("SECRET_KEY", "too short")


def a_short_token(at: Installation) -> None:
    at.set("OPS_TOKEN", "too short")


def a_number_of_processes_that_is_none(at: Installation) -> None:
    at.set("WEB_CONCURRENCY", "two")


def a_mail_server_whose_name_is_none(at: Installation) -> None:
    at.set("SMTP_URL", "smtp://mail..example.com:25")


def a_timeout_beyond_the_lease(at: Installation) -> None:
    at.set("SMTP_TIMEOUT_SECONDS", "50")


def a_lease_shorter_than_a_pop(at: Installation) -> None:
    at.set("OUTBOX_PUBLISH_LEASE_SECONDS", "2")


def a_message_that_nobody_publishes(at: Installation) -> None:
    add_message(at.connection, due_at=datetime(2026, 1, 1, tzinfo=UTC))
