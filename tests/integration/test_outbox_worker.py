"""`rq worker critical default` with RQ_WORKER_CLASS=consumer.worker.OutboxWorker, as a process."""

import os
import pickle
import signal
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Worker
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.defaults import RQ_KEY_PREFIX
from rq.suspension import resume, suspend

from embedded.mail_catcher import MailCatcher
from embedded.postgres import PostgresServer
from embedded.programs import Program
from embedded.redis import RedisServer
from shared.database import connect
from shared.messages import ENTRY_POINT, SendVerifyEmail, SendWelcomeEmail
from tests.preloading import Preloaded
from tests.processes import OUTBOX_WORKER, RQ, events, publish, run, started, worker_module, worker_settings
from tests.rows import add_message, add_user, message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

WAIT = 20.0


class Service:
    """A database with a user, a Redis, a mail server, and workers."""

    def __init__(
        self, database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, folder: Path
    ) -> None:
        self.redis_url = redis_url
        self.mailbox = mailbox
        self.settings = {
            **worker_settings(database_url, redis_url, mailbox.smtp_url),
            "RQ_WORKER_CLASS": OUTBOX_WORKER,
        }
        self.connection = connect(database_url, "test")
        self.redis = Redis.from_url(redis_url)
        self._origin = origin
        self._folder = folder
        self._workers = ExitStack()
        self._count = 0
        add_user(self.connection)

    def start(self, *options: str, wait: bool = True, **settings: str) -> Program:
        """Start a worker, and wait until it takes jobs."""
        worker = self._start(worker_module(*options), settings)
        if wait:
            wait_until(lambda: said(worker, "worker_started"), WAIT, "the worker to start")
        return worker

    def start_impatient(self, constant: str, *options: str, **settings: str) -> Program:
        """Start a worker with a constant replaced whose time no test can wait for."""
        argv = [sys.executable, "-m", "tests.crash.launch", "--set", constant, "worker", *options]
        return self._start(argv, settings)

    def publish(self, count: int = 1, task: str = SendVerifyEmail.task, queue: str = "critical") -> list[int]:
        """Write messages and put them on Redis."""
        ids = [add_message(self.connection, task, queue=queue) for _ in range(count)]
        assert publish(self.connection, self.redis_url) == count
        return ids

    def _start(self, argv: Sequence[str | Path], settings: Mapping[str, str]) -> Program:
        self._count += 1
        log_file = self._folder / f"worker-{self._count}.log"
        return self._workers.enter_context(started(argv, {**self.settings, **settings}, log_file, self._origin))

    def sent(self) -> list[int]:
        """Give the messages whose mails have arrived, in their order."""
        return [int(mail.message["Message-ID"].split("-")[1].split("@")[0]) for mail in self.mailbox.mails()]

    def status(self, message_id: int) -> str:
        return str(message(self.connection, message_id)["status"])

    def wait_for_done(self, ids: list[int]) -> None:
        wait_until(lambda: {self.status(id_) for id_ in ids} == {"done"}, WAIT, "the messages to be done")

    def listed(self) -> list[str]:
        """Give the jobs that wait in Redis."""
        return [job for name in ("critical", "default") for job in Queue(name, connection=self.redis).job_ids]

    def shown_workers(self) -> list[str]:
        """Give the workers that RQ shows."""
        return [worker.name for worker in Worker.all(connection=self.redis)]

    def close(self) -> None:
        self._workers.close()
        self.redis.close()
        self.connection.close()


@contextmanager
def service_of(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, folder: Path
) -> Iterator[Service]:
    service = Service(database_url, redis_url, mailbox, origin, folder)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def service(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> Iterator[Service]:
    with service_of(database_url, redis_url, mailbox, origin, tmp_path) as opened:
        yield opened


def said(worker: Program, event: str) -> list[dict[str, Any]]:
    return [line for line in events(worker) if line["event"] == event]


# ---- its work


def test_it_finishes_messages_of_both_queues_and_leaves_nothing_in_redis(service: Service) -> None:
    worker = service.start()

    ids = service.publish() + service.publish(1, SendWelcomeEmail.task, "default")
    service.wait_for_done(ids)

    assert sorted(mail.subject for mail in service.mailbox.mails()) == ["Verify your address", "Welcome"]
    wait_until(lambda: not service.redis.keys(f"{RQ_KEY_PREFIX}:job:*"), WAIT, "the jobs to be deleted")
    assert {(line["message_id"], line["verdict"]) for line in said(worker, "message")} == {(id_, "done") for id_ in ids}


def test_ten_mails_are_on_their_way_side_by_side(service: Service) -> None:
    service.mailbox.set_fault("slow:0.5")
    service.start()

    ids = service.publish(10)

    wait_until(lambda: {service.status(id_) for id_ in ids} == {"running"}, WAIT, "ten messages in hand at once")
    service.mailbox.set_fault(None)
    service.wait_for_done(ids)


def test_critical_goes_first(service: Service) -> None:
    later = service.publish(1, SendWelcomeEmail.task, "default")
    urgent = service.publish(20)

    service.start("--burst", WORKER_CONCURRENCY="1").wait(WAIT)

    assert service.sent() == urgent + later


def test_a_critical_queue_that_is_never_empty_does_not_starve_default(service: Service) -> None:
    urgent = service.publish(20)
    [other] = service.publish(1, SendWelcomeEmail.task, "default")

    service.start_impatient("consumer.intake:STARVED_SECONDS=0", "--burst", WORKER_CONCURRENCY="1").wait(WAIT)

    order = service.sent()
    assert sorted(order) == [*urgent, other]
    assert 0 < order.index(other) < 11


def test_rq_info_shows_it(service: Service, tmp_path: Path) -> None:
    service.start("--name", "our-worker")

    shown = [
        run([RQ, "info"], {"RQ_REDIS_URL": service.redis_url, **own}, tmp_path / "info.log")
        for own in ({}, {"RQ_WORKER_CLASS": OUTBOX_WORKER})
    ]

    assert [(info.returncode, "our-worker (" in info.stdout) for info in shown] == [(0, True), (0, True)]


def test_what_it_has_done_is_counted_where_rq_looks(service: Service) -> None:
    service.start("--name", "our-worker")
    service.wait_for_done(service.publish(3))

    def counted() -> int:
        [shown] = Worker.all(connection=service.redis)
        return shown.successful_job_count

    wait_until(lambda: counted() == 3, WAIT, "three jobs to be counted")


# ---- start


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("SECRET_KEY", "too short a secret"),
        ("SMTP_URL", "http://mail"),
        ("SMTP_TIMEOUT_SECONDS", "41"),
    ],
)
def test_a_setting_that_is_missing_or_malformed_stops_it_by_its_name(
    service: Service, origin: Preloaded, tmp_path: Path, name: str, value: str | None
) -> None:
    settings = {key: text for key, text in {**service.settings, name: value}.items() if text is not None}

    stopped = run(worker_module(), settings, tmp_path / "stopped.log", origin)

    assert (stopped.returncode, f"{name}: " in stopped.stdout, "Traceback" in stopped.stdout) == (2, True, False)
    assert "too short a secret" not in stopped.stdout


def test_it_waits_for_a_redis_that_is_not_there_yet(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        own_redis.stop()
        worker = service.start(wait=False)
        wait_until(lambda: said(worker, "waiting_for_redis"), WAIT, "the worker to wait")
        own_redis.start()

        service.wait_for_done(service.publish())


# ---- end


def test_burst_ends_when_the_queues_are_empty(service: Service) -> None:
    ids = service.publish(15)

    ended = service.start("--burst").wait(WAIT)

    assert (ended, {service.status(id_) for id_ in ids}, service.listed()) == (0, {"done"}, [])


def test_it_ends_after_as_many_jobs_as_it_was_told(service: Service) -> None:
    ids = service.publish(5)

    ended = service.start("--max-jobs", "3").wait(WAIT)

    assert ended == 0
    assert sorted(service.status(id_) for id_ in ids) == ["done"] * 3 + ["published"] * 2
    assert len(service.listed()) == 2


def test_it_ends_when_it_was_idle_for_as_long_as_it_was_told(service: Service) -> None:
    worker = service.start("--max-idle-time", "1")

    assert worker.wait(WAIT) == 0


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]
)
def test_a_signal_lets_it_finish_what_it_has_in_hand(service: Service, signals: list[signal.Signals]) -> None:
    service.mailbox.set_fault("slow:0.2")
    worker = service.start(WORKER_CONCURRENCY="2")
    ids = service.publish(6)
    wait_until(lambda: [service.status(id_) for id_ in ids].count("running") == 2, WAIT, "two messages in hand")

    for each in signals:
        os.kill(worker.pid, each)
    ended = worker.wait(WAIT)

    done = [id_ for id_ in ids if service.status(id_) == "done"]
    assert (ended, len(done) >= 2) == (0, True)
    assert len(service.mailbox.mails()) == len(done)
    assert sorted(service.listed()) == sorted(f"outbox-{id_}-g0" for id_ in ids if id_ not in done)
    assert {message(service.connection, id_)["attempt"] for id_ in ids if id_ not in done} <= {0}
    assert service.shown_workers() == []


def test_an_idle_worker_ends_at_a_signal(service: Service) -> None:
    worker = service.start()

    assert worker.stop(WAIT) == 0


# ---- what is said to it over Redis


def test_it_takes_nothing_while_it_is_suspended(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start()
        suspend(service.redis)
        wait_until(lambda: said(worker, "suspended"), WAIT, "the worker to be suspended")
        wait_until(lambda: not pops_under_way(service), WAIT, "the last pops to end")

        ids = service.publish(3)
        assert [service.status(id_) for id_ in ids] == ["published"] * 3
        resume(service.redis)

        service.wait_for_done(ids)


def pops_under_way(service: Service) -> bool:
    return any(client["cmd"] == "blpop" and "b" in client["flags"] for client in service.redis.client_list())


def test_no_command_over_redis_stops_it(service: Service) -> None:
    worker = service.start("--name", "our-worker")

    send_shutdown_command(service.redis, "our-worker")
    send_kill_horse_command(service.redis, "our-worker")

    service.wait_for_done(service.publish())
    assert worker.running


def push_foreign_jobs(service: Service, trace: Path) -> int:
    """Put into the lists what strangers could, and return how many; a job that is run leaves a trace."""
    redis, queue = service.redis, Queue("critical", connection=service.redis)
    touch = f"touch {trace}"
    queue.enqueue("os.system", touch)
    queue.enqueue("no.such.function")
    queue.enqueue("builtins.print", "text", on_success=Callback("os.system"), on_failure=Callback("os.system"))
    queue.enqueue(ENTRY_POINT, "text")
    queue.enqueue(ENTRY_POINT, True)  # noqa: FBT003 - the case
    queue.enqueue(ENTRY_POINT, 2**63)
    hashes: dict[bytes, dict[str, bytes]] = {
        b"pickled-call": {"data": zlib.compress(pickle.dumps((RunsWhenRead(touch), None, (1,), {})))},
        b"pickled-result": {"data": b"garbage", "result": pickle.dumps(RunsWhenRead(touch))},
        b"garbage": {"data": b"\xff\x00garbage"},
        b"bomb": {"data": zlib.compress(b"\x00" * 2_000_000)},
        b"much": {"data": b"x" * 1_000_000},
        b"memory": {"data": b"\x80\x02Nr\xff\xff\xff\x03."},
        b"number-of-arguments": {"data": pickle.dumps((ENTRY_POINT, None, 5, {}))},
        b"no-data": {"origin": b"critical"},
        b"\xff\xfe-not-utf-8": {"data": b""},
        b"": {"data": b"x"},
        b"outbox-0-g0": {"data": b"x"},
    }
    for id_, fields in hashes.items():
        for field, value in fields.items():
            redis.hset(f"{RQ_KEY_PREFIX}:job:".encode() + id_, field, value)
    redis.set(f"{RQ_KEY_PREFIX}:job:a-text", "text")
    redis.rpush(f"{RQ_KEY_PREFIX}:job:a-list", "text")
    alone = [*hashes, b"a-text", b"a-list", b"no-hash", b"\xf0\x28", b"x" * 100_000]
    redis.rpush(f"{RQ_KEY_PREFIX}:queue:critical", *alone)
    return 6 + len(alone)


class RunsWhenRead:
    """A pickle of it runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_foreign_jobs_neither_run_nor_stop_it(service: Service, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    worker = service.start(WORKER_CONCURRENCY="1")

    foreign = push_foreign_jobs(service, trace)
    service.wait_for_done(service.publish())

    wait_until(lambda: not service.listed(), WAIT, "the foreign jobs to be taken")
    assert (worker.running, trace.exists()) == (True, False)
    assert len(said(worker, "foreign_job")) == foreign
    assert said(worker, "intake_failed") == []
    assert "Traceback" not in worker.command.log_file.read_text()


def test_callbacks_of_a_job_that_names_a_message_are_not_run(service: Service, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    id_ = add_message(service.connection)
    callback = Callback("os.system", timeout=5)
    Queue("default", connection=service.redis).enqueue(
        ENTRY_POINT, id_, job_id=f"outbox-{id_}-g0", on_success=callback, on_failure=callback, on_stopped=callback
    )
    service.redis.hset(f"{RQ_KEY_PREFIX}:job:outbox-{id_}-g0", "data", pickle.dumps(RunsWhenRead(f"touch {trace}")))

    service.start()

    service.wait_for_done([id_])
    assert not trace.exists()


def test_a_job_that_rq_itself_enqueued_is_done(service: Service) -> None:
    id_ = add_message(service.connection)
    Queue("default", connection=service.redis).enqueue(ENTRY_POINT, id_)

    service.start()

    service.wait_for_done([id_])


def test_jobs_of_messages_that_are_gone_or_done_are_taken_quietly(service: Service) -> None:
    worker = service.start()
    [id_] = service.publish()
    service.wait_for_done([id_])

    service.redis.rpush(f"{RQ_KEY_PREFIX}:queue:critical", f"outbox-{id_}-g0", "outbox-1000000-g0")

    wait_until(lambda: len(said(worker, "message")) == 3, WAIT, "both jobs to be taken")
    assert [line["verdict"] for line in said(worker, "message")] == ["done", "not_claimed", "not_claimed"]
    assert len(service.mailbox.mails()) == 1


# ---- what may happen to its servers


def test_an_emptied_redis_learns_of_it_again(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        service.start_impatient("consumer.outbox_worker:_BEAT_SECONDS=0.5", "--name", "our-worker")
        wait_until(lambda: service.shown_workers() == ["our-worker"], WAIT, "the worker to be shown")
        service.redis.flushall()

        wait_until(lambda: service.shown_workers() == ["our-worker"], WAIT, "the worker to be shown again")
        service.wait_for_done(service.publish())


def test_it_goes_on_after_redis_was_restarted(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start()
        own_redis.stop()
        wait_until(lambda: said(worker, "outage"), WAIT, "the outage to be noticed")
        own_redis.start()

        service.wait_for_done(service.publish())
        assert [line["of"] for line in said(worker, "outage")] == ["redis"]
        wait_until(lambda: said(worker, "back"), WAIT, "the end of the outage to be told")


def test_no_outcome_waits_for_a_redis_that_stands_still(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    mailbox.set_fault("slow:0.2")
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start(WORKER_CONCURRENCY="4")
        ids = service.publish(5)
        wait_until(lambda: {service.status(id_) for id_ in ids} == {"running"}, WAIT, "five messages in hand")
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            # Four mails are sent side by side and the fifth after them, while the jobs of the first wait for Redis.
            wait_until(lambda: {service.status(id_) for id_ in ids} == {"done"}, 8, "the messages to be done")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)

        service.wait_for_done(service.publish())
        wait_until(lambda: not service.redis.keys(f"{RQ_KEY_PREFIX}:job:*"), WAIT, "all jobs to be deleted")
        assert [line["of"] for line in said(worker, "outage")] == ["redis"]


def test_it_goes_on_after_postgresql_was_restarted(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    url = own_postgres.url("outbox")
    with service_of(url, redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start(OUTBOX_RUN_LEASE_SECONDS="3", WORKER_CONCURRENCY="1")
        ids = service.publish(2)
        service.wait_for_done(ids)
        own_postgres.kill()
        service.redis.rpush(f"{RQ_KEY_PREFIX}:queue:critical", "outbox-1000000-g0")
        wait_until(lambda: verdicts(worker)[-1] == "database_away", WAIT, "a job that finds no PostgreSQL")
        service.redis.rpush(f"{RQ_KEY_PREFIX}:queue:critical", "outbox-1000001-g0")
        own_postgres.start()

        wait_until(lambda: verdicts(worker)[-1] == "not_claimed", WAIT, "the job behind it")
        assert (verdicts(worker), worker.running) == (["done", "done", "database_away", "not_claimed"], True)


def test_a_thread_that_hangs_makes_the_process_start_anew(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(own_postgres.url("outbox"), redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start_impatient(
            "consumer.team:_LEAVE_SECONDS=0.5", OUTBOX_RUN_LEASE_SECONDS="1", WORKER_CONCURRENCY="1"
        )
        service.wait_for_done(service.publish())
        pid = worker.pid
        with frozen_sessions(service):
            service.publish()
            wait_until(lambda: len(said(worker, "worker_started")) == 2, WAIT, "the process to start anew")
            service.wait_for_done(service.publish())

        assert (len(said(worker, "thread_stuck")), worker.pid) == (1, pid)


def test_a_signal_in_the_moment_in_which_it_starts_anew_is_not_forgotten(
    own_postgres: PostgresServer, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(own_postgres.url("outbox"), redis_url, mailbox, origin, tmp_path) as service:
        worker = service.start_impatient(
            "consumer.team:_LEAVE_SECONDS=0.5",
            *("--import", "tests.crash.late_signal"),
            OUTBOX_RUN_LEASE_SECONDS="1",
            WORKER_CONCURRENCY="1",
        )
        service.wait_for_done(service.publish())
        with frozen_sessions(service):
            service.publish()
            ended = worker.wait(WAIT)

        assert (ended, len(said(worker, "thread_stuck")), len(said(worker, "worker_started"))) == (
            -signal.SIGTERM,
            1,
            1,
        )


@contextmanager
def frozen_sessions(service: Service) -> Iterator[None]:
    """Stop PostgreSQL's processes that serve the worker; sessions that it opens meanwhile are served."""
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


def verdicts(worker: Program) -> list[str]:
    return [line["verdict"] for line in said(worker, "message")]
