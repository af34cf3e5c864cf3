"""Outages of an OutboxWorker's servers, and stuck threads."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from shared.rq_format.ids import job_id
from tests.consumer.threaded.service import WAIT, Service, said, service_of
from tests.dispositions import dispositions
from tests.failover.demotion import demotable_redis
from tests.failover.sentinels import role, watched_pair
from tests.programs.preloading import Preloaded
from tests.programs.processes import events
from tests.redis_keys import KEYS
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


def test_the_worker_registers_again_in_an_emptied_redis(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        service.start_fast("FastHeartbeat", "--name", "our-worker")
        wait_until(lambda: service.shown_workers() == ["our-worker"], WAIT, "the worker to be shown")
        service.redis.flushall()

        wait_until(lambda: service.shown_workers() == ["our-worker"], WAIT, "the worker to be shown again")
        service.wait_for_done(service.publish())


def test_the_worker_continues_after_a_restart_of_redis(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start()
        own_redis.stop()
        wait_until(lambda: said(worker, "redis.unavailable"), WAIT, "the outage to be noticed")
        own_redis.start()

        service.wait_for_done(service.publish())
        assert len(said(worker, "redis.unavailable")) == 1
        wait_until(lambda: said(worker, "redis.recovered"), WAIT, "the end of the outage to be logged")


def test_the_worker_leaves_a_demoted_redis_for_its_successor(
    database_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with demotable_redis(tmp_path) as redis, service_of(database_url, redis.url, mailbox, origin, tmp_path) as service:
        service.start_fast("FastHeartbeat", "--name", "our-worker")
        service.wait_for_done(service.publish())
        redis.demote()

        with redis.second.client() as client:
            client.flushall()
            service.wait_for_done(service.publish(2))
            service.wait_for_done(service.publish())
            wait_until(lambda: client.keys(KEYS.worker("our-worker")), WAIT, "the worker to be shown again")
            wait_until(lambda: not client.keys(KEYS.job("*")), WAIT, "all jobs to be deleted")


def test_the_worker_leaves_a_replaced_master_before_it_is_a_replica(
    database_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with watched_pair(tmp_path) as pair, service_of(database_url, pair.url, mailbox, origin, tmp_path) as service:
        service.start_fast("FastHeartbeat")
        service.wait_for_done(service.publish())
        pair.sentinels.order_failover()
        pair.wait_for_promotion()

        service.wait_for_done(service.publish(2))
        assert [role(server) for server in (pair.first, pair.second)] == ["master", "master"]


def test_no_outcome_waits_for_a_frozen_redis(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    mailbox.set_fault("slow:0.1")
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start(WORKER_CONCURRENCY="4")
        ids = service.publish(5)
        wait_until(lambda: {service.status(id_) for id_ in ids} == {"running"}, WAIT, "five messages in hand")
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            # Four mails are sent at once and the fifth after them, while the jobs of the first wait for Redis.
            wait_until(lambda: {service.status(id_) for id_ in ids} == {"done"}, 8, "the messages to be done")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)

        service.wait_for_done(service.publish())
        wait_until(lambda: not service.redis.keys(KEYS.job("*")), WAIT, "all jobs to be deleted")
        assert len(said(worker, "redis.unavailable")) == 1


def test_the_worker_continues_after_a_restart_of_postgresql(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    url = own_postgres.url("outbox")
    with service_of(url, redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start(OUTBOX_RUN_LEASE_SECONDS="3", WORKER_CONCURRENCY="1")
        ids = service.publish(2)
        service.wait_for_done(ids)
        own_postgres.kill()
        service.redis.rpush(KEYS.queue("critical"), job_id(1000000, 0))
        wait_until(lambda: dispositions(events(worker))[-1] == "unacknowledged", WAIT, "a job that finds no PostgreSQL")
        service.redis.rpush(KEYS.queue("critical"), job_id(1000001, 0))
        own_postgres.start()

        wait_until(lambda: dispositions(events(worker))[-1] == "not_claimed", WAIT, "the job behind it")
        assert worker.running
        assert dispositions(events(worker)) == ["delivered", "delivered", "unacknowledged", "not_claimed"]


def test_a_stuck_thread_makes_the_process_restart(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(own_postgres.url("outbox"), redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start_fast("ShortGrace", OUTBOX_RUN_LEASE_SECONDS="1", WORKER_CONCURRENCY="1")
        service.wait_for_done(service.publish())
        pid = worker.pid
        with frozen_sessions(service):
            service.publish()
            wait_until(lambda: len(said(worker, "worker.started")) == 2, WAIT, "the process to restart")
            service.wait_for_done(service.publish())

        assert (len(said(worker, "thread.stuck")), worker.pid) == (1, pid)


def test_a_signal_at_the_moment_of_the_restart_is_not_lost(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(own_postgres.url("outbox"), redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start_fast("SignalledAtRestart", OUTBOX_RUN_LEASE_SECONDS="1", WORKER_CONCURRENCY="1")
        service.wait_for_done(service.publish())
        with frozen_sessions(service):
            service.publish()
            exit_code = worker.wait(WAIT)

        assert (exit_code, len(said(worker, "thread.stuck")), len(said(worker, "worker.started"))) == (
            -signal.SIGTERM,
            1,
            1,
        )


@contextmanager
def frozen_sessions(service: Service) -> Iterator[None]:
    """Freeze the PostgreSQL processes that serve the worker. Sessions that it opens meanwhile are served."""
    backends = service.connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-consumer'"
    ).fetchall()
    for [backend] in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        for [backend] in backends:
            os.kill(backend, signal.SIGCONT)
