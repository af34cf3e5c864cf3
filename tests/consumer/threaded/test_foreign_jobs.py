"""Foreign jobs, keys and commands in Redis: what an OutboxWorker does with them."""

import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from rq import Callback, Queue
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.job import JobStatus
from rq.registry import FailedJobRegistry
from rq.suspension import resume, suspend

from embedded.mail.catcher import MailCatcher
from embedded.servers.redis import RedisServer
from shared.outbox.messages import ENTRY_POINT
from shared.rq_format.ids import job_id
from tests.addresses import with_login
from tests.consumer.threaded.service import WAIT, Service, said, service_of
from tests.dispositions import dispositions
from tests.programs.preloading import Preloaded
from tests.programs.processes import events
from tests.redis_keys import KEYS
from tests.rows import add_message
from tests.shared.rq_format.hostile_pickles import RunsWhenRead
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


def test_a_suspended_worker_takes_no_job(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        worker = service.start()
        suspend(service.redis)
        wait_until(lambda: said(worker, "worker.suspended"), WAIT, "the worker to be suspended")
        wait_until(lambda: not pops_under_way(service), WAIT, "the last pops to end")

        ids = service.publish(3)
        assert [service.status(id_) for id_ in ids] == ["published"] * 3
        resume(service.redis)

        service.wait_for_done(ids)


def pops_under_way(service: Service) -> bool:
    return any(client["cmd"] == "blpop" and "b" in client["flags"] for client in service.redis.client_list())


def test_no_command_over_redis_stops_the_worker(service: Service) -> None:
    worker = service.start("--name", "our-worker")

    send_shutdown_command(service.redis, "our-worker")
    send_kill_horse_command(service.redis, "our-worker")

    service.wait_for_done(service.publish())
    assert worker.running


def push_foreign_jobs(service: Service, trace: Path) -> int:
    """Push foreign jobs and return how many. A job that is run leaves a trace."""
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
        job_id(0, 0).encode(): {"data": b"x"},
    }
    for id_, fields in hashes.items():
        for field, value in fields.items():
            redis.hset(KEYS.job("").encode() + id_, field, value)
    redis.set(KEYS.job("a-text"), "text")
    redis.rpush(KEYS.job("a-list"), "text")
    alone = [*hashes, b"a-text", b"a-list", b"no-hash", b"\xf0\x28", b"x" * 100_000]
    redis.rpush(KEYS.queue("critical"), *alone)
    return 6 + len(alone)


def test_foreign_jobs_neither_run_nor_stop_the_worker(service: Service, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    worker = service.start(WORKER_CONCURRENCY="1")

    foreign = push_foreign_jobs(service, trace)
    service.wait_for_done(service.publish())

    wait_until(lambda: not service.listed(), WAIT, "the foreign jobs to be taken")
    assert (worker.running, trace.exists()) == (True, False)
    assert len(said(worker, "job.refused")) == foreign
    assert said(worker, "fetcher.failed") == []
    assert "Traceback" not in worker.command.log_file.read_text()


def test_a_foreign_job_is_found_among_the_failed_ones_of_its_queue(service: Service) -> None:
    queue = Queue("default", connection=service.redis)
    job = queue.enqueue("a.stranger.s.function", "text", meta={"whose": "a stranger's"})
    worker = service.start()

    wait_until(lambda: said(worker, "job.refused"), WAIT, "the job to be taken")

    job.refresh()
    assert FailedJobRegistry(queue=queue).get_job_ids() == [job.id]
    assert (job.get_status(), job.func_name, job.args) == (JobStatus.FAILED, "a.stranger.s.function", ("text",))
    assert job.meta == {"whose": "a stranger's"}
    result = job.latest_result()
    assert result is not None
    assert "from another queue" in str(result.exc_string)
    FailedJobRegistry(queue=queue).requeue(job)
    wait_until(lambda: len(said(worker, "job.refused")) == 2, WAIT, "the requeued job to be taken again")


@pytest.mark.parametrize("queue", ["critical", "default"])
def test_a_queues_key_without_a_list_stops_only_that_queue(service: Service, queue: str) -> None:
    [other] = {"critical", "default"} - {queue}
    service.redis.set(KEYS.queue(queue), "x")
    worker = service.start()

    service.wait_for_done(service.publish(queue=other))
    service.redis.delete(KEYS.queue(queue))
    service.wait_for_done(service.publish(queue=queue))

    assert [line["key"] for line in said(worker, "queue.blocked")] == [KEYS.queue(queue)]
    assert [said(worker, "redis.unavailable"), said(worker, "fetcher.failed")] == [[], []]


@pytest.mark.parametrize(
    ("rights", "foreign_value", "logged"),
    [
        (["-unlink"], None, 1),
        (["-hincrby"], None, 1),
        ([], "x", 0),
        (["-info"], None, 0),
    ],
)
def test_a_missing_permission_is_logged_and_a_foreign_counter_is_not(
    service: Service, rights: list[str], foreign_value: str | None, logged: int
) -> None:
    all_but: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": rights}
    service.redis.acl_setuser("worker", enabled=True, passwords=["+x"], **all_but)
    worker = service.start("--name", "ours", RQ_REDIS_URL=with_login(service.redis_url, "worker:x"))
    if foreign_value is not None:
        service.redis.delete(KEYS.worker("ours"))
        service.redis.set(KEYS.worker("ours"), foreign_value)

    for _ in range(2):
        service.wait_for_done(service.publish())

    wait_until(lambda: len(said(worker, "jobs.not_deleted")) == logged, WAIT, "the refusal to be logged once")
    assert all("permission" in line["error"] for line in said(worker, "jobs.not_deleted"))
    assert said(worker, "redis.unavailable") == []
    service.redis.acl_deluser("worker")


def test_callbacks_of_a_job_that_names_a_message_are_not_run(service: Service, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    id_ = add_message(service.connection)
    callback = Callback("os.system", timeout=5)
    Queue("default", connection=service.redis).enqueue(
        ENTRY_POINT, id_, job_id=job_id(id_, 0), on_success=callback, on_failure=callback, on_stopped=callback
    )
    service.redis.hset(KEYS.job(job_id(id_, 0)), "data", pickle.dumps(RunsWhenRead(f"touch {trace}")))

    service.start()

    service.wait_for_done([id_])
    assert not trace.exists()


def test_a_job_that_rq_itself_enqueued_is_done(service: Service) -> None:
    id_ = add_message(service.connection)
    Queue("default", connection=service.redis).enqueue(ENTRY_POINT, id_)

    service.start()

    service.wait_for_done([id_])


def test_jobs_of_missing_or_finished_messages_are_deleted(service: Service) -> None:
    worker = service.start()
    [id_] = service.publish()
    service.wait_for_done([id_])

    service.redis.rpush(KEYS.queue("critical"), job_id(id_, 0), job_id(1000000, 0))

    wait_until(lambda: len(dispositions(events(worker))) == 3, WAIT, "both jobs to be taken")
    assert dispositions(events(worker)) == ["delivered", "not_claimed", "not_claimed"]
    assert len(service.mailbox.mails()) == 1
