"""How an OutboxWorker starts and ends."""

import os
import signal
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from embedded.servers.redis import RedisServer
from shared.rq_format.ids import job_id
from tests.consumer.threaded.service import WAIT, Service, said, service_of
from tests.programs.preloading import Preloaded
from tests.programs.processes import run, worker_module
from tests.rows import message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("SECRET_KEY", "too short a secret"),
        ("SMTP_URL", "http://mail"),
        ("SMTP_TIMEOUT_SECONDS", "41"),
    ],
)
def test_a_missing_or_malformed_setting_stops_the_worker_with_its_name(
    service: Service, origin: Preloaded, tmp_path: Path, name: str, value: str | None
) -> None:
    settings = {key: text for key, text in {**service.settings, name: value}.items() if text is not None}

    stopped = run(worker_module(), settings, tmp_path / "stopped.log", origin)

    assert (stopped.returncode, f"{name}: " in stopped.stdout, "Traceback" in stopped.stdout) == (2, True, False)
    assert "too short a secret" not in stopped.stdout


def test_the_worker_waits_for_redis_at_its_start(
    database_url: str, own_redis: RedisServer, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> None:
    with service_of(database_url, own_redis.url, mailbox, origin, tmp_path) as service:
        own_redis.stop()
        worker = service.start(wait=False)
        wait_until(lambda: said(worker, "redis.unavailable"), WAIT, "the worker to wait")
        own_redis.start()

        service.wait_for_done(service.publish())


def test_burst_ends_when_the_queues_are_empty(service: Service) -> None:
    ids = service.publish(15)

    exit_code = service.start("--burst").wait(WAIT)

    assert (exit_code, {service.status(id_) for id_ in ids}, service.listed()) == (0, {"done"}, [])


def test_max_jobs_ends_the_worker(service: Service) -> None:
    ids = service.publish(5)

    exit_code = service.start("--max-jobs", "3").wait(WAIT)

    assert exit_code == 0
    assert sorted(service.status(id_) for id_ in ids) == ["done"] * 3 + ["published"] * 2
    assert len(service.listed()) == 2


def test_max_idle_time_ends_the_worker(service: Service) -> None:
    worker = service.start("--max-idle-time", "1")

    assert worker.wait(WAIT) == 0


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]
)
def test_a_signal_lets_the_worker_finish_the_messages_in_hand(service: Service, signals: list[signal.Signals]) -> None:
    service.mailbox.set_fault("slow:0.05")
    worker = service.start(WORKER_CONCURRENCY="2")
    ids = service.publish(6)
    wait_until(lambda: [service.status(id_) for id_ in ids].count("running") == 2, WAIT, "two messages in hand")

    for each in signals:
        os.kill(worker.pid, each)
    exit_code = worker.wait(WAIT)

    done = [id_ for id_ in ids if service.status(id_) == "done"]
    assert (exit_code, len(done) >= 2) == (0, True)
    assert len(service.mailbox.mails()) == len(done)
    assert sorted(service.listed()) == sorted(job_id(id_, 0) for id_ in ids if id_ not in done)
    assert {message(service.connection, id_)["attempt"] for id_ in ids if id_ not in done} <= {0}
    assert service.shown_workers() == []


def test_an_idle_worker_ends_at_a_signal(service: Service) -> None:
    worker = service.start()

    assert worker.stop(WAIT) == 0
