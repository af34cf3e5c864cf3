"""`rq worker critical default` with RQ's own worker class, as a process."""

import os
import pickle
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from time import monotonic
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from shared.database.connections import connect
from shared.outbox.messages import ENTRY_POINT, SendVerifyEmail, SendWelcomeEmail
from shared.rq_format.ids import job_id
from tests.consumer import handled_tasks
from tests.consumer.threaded.service import said
from tests.dispositions import disposition_lines, dispositions
from tests.programs.preloading import Preloaded
from tests.programs.processes import events, publish, run, started, worker_command, worker_module, worker_settings
from tests.rows import add_message, add_user, message
from tests.servers.scripted_mail_server import CONTENT, Answer, ScriptedMailServer, Session
from tests.shared.rq_format.hostile_pickles import RunsWhenRead
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


class Service:
    """A database with a user, a Redis and a mail server, and a worker that runs until the queues are empty."""

    def __init__(self, database_url: str, redis_url: str, smtp_url: str, origin: Preloaded, log_file: Path) -> None:
        self.redis_url = redis_url
        self.settings = worker_settings(database_url, redis_url, smtp_url)
        self.connection = connect(database_url, "test")
        self.redis = Redis.from_url(redis_url)
        self._origin = origin
        self._log_file = log_file
        add_user(self.connection)

    def run(self, **settings: str) -> CompletedProcess[str]:
        return self._run(worker_module("--burst"), settings, self._origin)

    def run_from_scratch(self) -> CompletedProcess[str]:
        """Run the worker as a new Python process, not as a fork."""
        return self._run(worker_command("--burst"), {}, None)

    def _run(
        self, argv: Sequence[str | Path], settings: Mapping[str, str], origin: Preloaded | None
    ) -> CompletedProcess[str]:
        finished = run(argv, {**self.settings, **settings}, self._log_file, origin)
        assert (finished.returncode, "Traceback" in finished.stdout) == (0, False)
        return finished

    def publish(self, task: str = SendVerifyEmail.task, queue: str = "critical", **columns: Any) -> int:
        id_ = add_message(self.connection, task, queue=queue, **columns)
        assert publish(self.connection, self.redis_url) == 1
        return id_

    def message(self, message_id: int) -> dict[str, Any]:
        return message(self.connection, message_id)

    def job(self, message_id: int) -> Job:
        return Job.fetch(job_id(message_id, 0), connection=self.redis)

    def memory(self) -> bytes:
        """Return everything that Redis stores."""
        return b"".join(self.redis.dump(key) or b"" for key in self.redis.scan_iter(f"{RQ_KEY_PREFIX}*"))

    def close(self) -> None:
        self.redis.close()
        self.connection.close()


@pytest.fixture
def service(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> Iterator[Service]:
    with closing(Service(database_url, redis_url, mailbox.smtp_url, origin, tmp_path / "worker.log")) as opened:
        yield opened


def test_messages_of_both_queues_are_done(service: Service, mailbox: MailCatcher) -> None:
    ids = [service.publish(), service.publish(SendWelcomeEmail.task, "default")]

    finished = service.run_from_scratch()

    assert [service.message(id_)["status"] for id_ in ids] == ["done", "done"]
    assert [service.job(id_).get_status() for id_ in ids] == [JobStatus.FINISHED] * 2
    assert dispositions(events(finished.stdout)) == ["delivered", "delivered"]
    assert [mail.subject for mail in mailbox.mails()] == ["Verify your email address", "Welcome"]


def test_a_job_contains_only_the_id_of_its_message(service: Service) -> None:
    id_ = service.publish()

    finished = service.run()

    assert f"outbox message {id_}" in finished.stdout
    assert ["alice" in finished.stdout, b"alice" in service.memory()] == [False, False]


def test_a_job_whose_message_is_done_or_does_not_exist_ends_well(service: Service, mailbox: MailCatcher) -> None:
    queue = Queue("default", connection=service.redis)
    id_ = service.publish()
    jobs = [queue.enqueue(ENTRY_POINT, number) for number in (id_, id_, 1_000_000, 2**63 - 1)]

    finished = service.run()

    assert sorted(dispositions(events(finished.stdout))) == ["delivered", *["not_claimed"] * 4]
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 4
    assert len(mailbox.mails()) == 1


def test_a_job_that_names_no_message_ends_well(service: Service) -> None:
    add_message(service.connection)
    queue = Queue("default", connection=service.redis)
    jobs = [queue.enqueue(ENTRY_POINT, each) for each in ("1", True, -1, 2**63)]

    finished = service.run()

    assert [line["event"] for line in events(finished.stdout)] == ["job.refused"] * 4
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 4
    assert service.message(1)["status"] == "pending"


def test_with_rqs_own_class_anyone_who_writes_to_redis_can_run_programs(service: Service, tmp_path: Path) -> None:
    named, pickled = tmp_path / "named", tmp_path / "pickled"
    queue = Queue("critical", connection=service.redis)
    queue.enqueue("os.system", f"touch {named}")
    job = queue.enqueue(ENTRY_POINT, 1)
    service.redis.hset(job.key, "data", pickle.dumps(RunsWhenRead(f"touch {pickled}")))

    run(worker_module("--burst"), service.settings, tmp_path / "stock.log", None)

    # SECURITY.md names this. OutboxWorker runs no such job (threaded/test_foreign_jobs.py).
    assert (named.exists(), pickled.exists()) == (True, True)


@pytest.mark.parametrize(
    ("name", "value"), [("SECRET_KEY", "too short a secret"), ("MAIL_FROM", ""), ("OUTBOX_TASKS", "nowhere")]
)
def test_a_bad_setting_releases_the_message_without_an_attempt(service: Service, name: str, value: str) -> None:
    id_ = service.publish(attempt=2)
    before = service.connection.execute("SELECT now()").fetchone()
    assert before is not None

    finished = service.run(**{name: value})

    row = service.message(id_)
    assert (row["status"], row["attempt"], row["generation"]) == ("pending", 2, 1)
    assert (row["last_error"], row["failures"]) == (f"a worker cannot start: {name}", [])
    assert timedelta(seconds=30) <= row["due_at"] - before[0] < timedelta(seconds=60)
    [line] = events(finished.stdout)
    assert (line["event"], line["level"], list(line["problems"])) == ("settings.refused", "error", [name])
    assert "too short a secret" not in finished.stdout
    assert service.job(id_).get_status() is JobStatus.FINISHED


@pytest.mark.parametrize("database", ["", "nowhere"])
def test_without_a_database_the_job_ends_well_and_the_message_stays(service: Service, database: str) -> None:
    id_ = service.publish()
    if database == "nowhere":
        database = f"postgresql://wonder:land@{LOOPBACK}:{free_port()}/outbox"

    finished = service.run(DATABASE_URL=database, OUTBOX_RUN_LEASE_SECONDS="1")

    assert service.message(id_)["status"] == "published"
    assert service.job(id_).get_status() is JobStatus.FINISHED
    assert "land" not in finished.stdout


def test_no_error_of_a_task_is_written_to_redis(service: Service) -> None:
    id_ = service.publish()
    service.connection.execute("ALTER TABLE users RENAME TO people")

    finished = service.run()

    row = service.message(id_)
    assert (row["status"], row["attempt"], dispositions(events(finished.stdout))) == ("pending", 1, ["failed"])
    assert row["last_error"] == "UndefinedTable while the message was prepared"
    assert service.job(id_).get_status() is JobStatus.FINISHED
    memory = service.memory()
    assert [word in memory for word in (b"UndefinedTable", b"Traceback", b"alice", b"exc_info")] == [False] * 4


def test_a_refused_mail_is_a_finished_job_and_a_failed_message(service: Service, mailbox: MailCatcher) -> None:
    mailbox.set_fault("rcpt-550")
    id_ = service.publish()

    service.run()

    assert (service.message(id_)["status"], service.job(id_).get_status()) == ("dead", JobStatus.FINISHED)


def test_an_unreachable_mail_server_opens_the_breaker_for_all_workers(service: Service) -> None:
    ids = [service.publish() for _ in range(3)]

    finished = service.run(SMTP_URL=f"smtp://{LOOPBACK}:{free_port()}")

    assert dispositions(events(finished.stdout)) == ["released"] * 3
    reasons = [line["reason"] for line in disposition_lines(events(finished.stdout))]
    assert reasons[1:] == ["the destination mail is unavailable"] * 2
    assert [(service.message(id_)["status"], service.message(id_)["attempt"]) for id_ in ids] == [("pending", 0)] * 3


SILENCE = Jsonb([{"attempt": 1, "reason": "silence", "maybe_accepted": True, "unanswered": True}])


def late(seconds: float) -> Answer:
    def wait(session: Session) -> str:
        session.server.is_stopping.wait(seconds)
        return "250 OK"

    return wait


def test_a_late_answer_is_waited_for_past_the_lease_and_past_rqs_alarm(service: Service) -> None:
    id_ = service.publish(failures=SILENCE)

    with ScriptedMailServer({CONTENT: late(4.5)}) as server:
        finished = service.run(SMTP_URL=f"smtp://{LOOPBACK}:{server.port}", OUTBOX_RUN_LEASE_SECONDS="3")

    assert (service.message(id_)["status"], len(server.contents)) == ("done", 1)
    assert service.job(id_).get_status() is JobStatus.FINISHED
    assert len([line for line in events(finished.stdout) if line["event"] == "lease.renewed"]) == 2


def test_a_worker_that_is_told_to_stop_waits_only_for_its_present_lease(
    service: Service, origin: Preloaded, tmp_path: Path
) -> None:
    id_ = service.publish(failures=SILENCE)
    with ScriptedMailServer({CONTENT: late(60.0)}) as server:
        settings = {
            **service.settings,
            "SMTP_URL": f"smtp://{LOOPBACK}:{server.port}",
            "OUTBOX_RUN_LEASE_SECONDS": "3",
        }
        with started(worker_module(), settings, tmp_path / "stopped.log", origin) as worker:
            wait_until(lambda: said(worker, "lease.renewed"), 20, "the lease to be renewed")
            told_at = monotonic()
            os.kill(worker.pid, signal.SIGTERM)
            wait_until(lambda: not worker.running, 20, "the worker to end")

    assert monotonic() - told_at < 4.0
    assert (service.message(id_)["status"], service.message(id_)["attempt"]) == ("pending", 1)


@pytest.mark.parametrize(
    ("task", "payload"),
    [(handled_tasks.Act.task, {"do": "hang"}), (handled_tasks.WriteSoon.task, {"text": "a long statement"})],
)
def test_a_task_that_takes_too_long_is_interrupted(service: Service, task: str, payload: dict[str, str]) -> None:
    service.connection.execute(handled_tasks.EFFECTS)
    tasks = {"OUTBOX_TASKS": handled_tasks.MODULE, "OUTBOX_BACKOFF_SCALE": "0"}
    id_ = service.publish(task=task, payload=payload)
    reasons = []
    for _ in range(2):
        service.run(**tasks)
        reasons.append(service.message(id_)["last_error"])
        publish(service.connection, service.redis_url)

    late = "the task ran for longer than 1 s"
    assert reasons == [late, f"{late} for the second time"]
    assert (service.message(id_)["status"], service.message(id_)["attempt"]) == ("dead", 2)
