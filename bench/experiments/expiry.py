"""What the expiry of unverified accounts costs, with and without its index."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import add_messages, add_users, settle
from bench.measuring import Contender, Experiment, Goal, Measurement
from outbox_relay.loop.maintenance.expiry import AccountExpiry
from outbox_relay.loop.pacing import ACCOUNTS_AT_ONCE
from shared.database.connections import connect, keep_plans, transaction
from shared.outbox import publishing as of_relay
from shared.outbox.claiming import claims as of_consumer
from shared.outbox.messages import CRITICAL, MAIL

ACCOUNT, LONGEST, MESSAGE = "µs/account", "longest ms/step", "µs/message"
WITH_INDEX, WITHOUT = "with the index of an account's mails", "without"

_LOCK_MS: Final = 50.0
_STEPS: Final = 40
_BATCH: Final = 100
_WANTED: Final = of_relay.from_start(CRITICAL, MAIL, _BATCH)
_LONGER: Final = 1.1


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the expiry of accounts that stay and that go, and the life of messages with and without the index."""
    rows = sizes.backlog_rows
    stay, go = f"{rows:,} old accounts, each with a mail that waits", "old accounts that go, beside them"
    expiry = Experiment(
        key="expiry",
        title="Expiry: what it costs to look whether a mail of an account is ahead, and to delete one that has none",
        columns=(ACCOUNT, LONGEST),
        reference=stay,
        contenders=(
            Contender(stay, partial(_expire, servers, rows, 0)),
            Contender(go, partial(_expire, servers, rows, _STEPS * ACCOUNTS_AT_ONCE)),
        ),
        goals=(Goal(stay, LONGEST, at_most=_LOCK_MS), Goal(go, LONGEST, at_most=_LOCK_MS)),
    )
    index = Experiment(
        key="account-index",
        title=f"Appended, published, claimed and acknowledged, {_BATCH} at a time",
        columns=(MESSAGE,),
        reference=WITHOUT,
        contenders=(
            Contender(WITHOUT, partial(_lives, servers, sizes.relay_rows, _drop_index)),
            Contender(WITH_INDEX, partial(_lives, servers, sizes.relay_rows, _keep_index)),
        ),
        goals=(Goal(WITH_INDEX, MESSAGE, WITHOUT, at_most=_LONGER),),
        repeats=sizes.repeats,
    )
    return [expiry, index]


def _expire(servers: Servers, waiting: int, going: int) -> Measurement:
    """Check accounts step by step; those that expire are older than all others."""
    database_url = servers.new_database("bench_expiry")
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_users(connection, waiting + going)
        add_messages(connection, waiting)
        connection.execute("UPDATE users SET created_at = '2020-01-01'")
        connection.execute(
            "UPDATE users SET created_at = '2019-01-01' WHERE substring(username FROM 5)::bigint > %s", [waiting]
        )
        settle(connection)
    milliseconds = []
    with connect(database_url, "bench") as connection:
        keep_plans(connection)
        expiry = AccountExpiry(7)
        for _ in range(_STEPS):
            started = time.perf_counter()
            step = expiry.step(connection)
            milliseconds.append((time.perf_counter() - started) * 1000)
            if not step.is_partial:
                break
    return Measurement(
        {ACCOUNT: statistics.median(milliseconds) * 1000 / ACCOUNTS_AT_ONCE, LONGEST: max(milliseconds)},
        tuple(milliseconds),
    )


def _drop_index(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DROP INDEX outbox_account_idx")


def _keep_index(_connection: psycopg.Connection[Any]) -> None:
    """Nothing."""


def _lives(servers: Servers, rows: int, prepare: Callable[[psycopg.Connection[Any]], None]) -> Measurement:
    """Append, publish, claim and acknowledge messages in SQL, as processes that do nothing else."""
    database_url = servers.new_database("bench_account_index")
    with connect(database_url, "bench") as connection:
        keep_plans(connection)
        prepare(connection)
        settle(connection)
        started = time.perf_counter()
        for _ in range(rows // _BATCH):
            add_messages(connection, _BATCH)
            with transaction(connection):
                ids = [job.id for part in of_relay.take_batch(connection, [_WANTED]) for job in part.jobs]
                of_relay.mark_published(connection, ids, "an epoch", 30)
            with transaction(connection):
                claims = of_consumer.claim(connection, ids, uuid4(), 60)
            with transaction(connection):
                of_consumer.ack(connection, claims)
        seconds = time.perf_counter() - started
    return Measurement({MESSAGE: seconds * 1_000_000 / (rows // _BATCH * _BATCH)})
