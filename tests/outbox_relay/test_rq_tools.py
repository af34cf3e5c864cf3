"""The tools that people watch RQ with list the jobs that the relay pushes: `rq info`, rq-dashboard, rq-exporter."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue, Worker
from rq.defaults import RQ_KEY_PREFIX
from rq.job import JobStatus
from rq_dashboard.cli import make_flask_app
from rq_dashboard.web import setup_rq_connection

from outbox_relay.broker import open_broker
from shared.outbox.messages import JobRef
from shared.rq_format.ids import job_id
from tests.programs.processes import RQ, run

ROWS = [JobRef(42, 3, "critical"), JobRef(43, 0, "critical"), JobRef(44, 0, "default")]


@pytest.fixture(autouse=True)
def _pushed(redis_url: str) -> None:
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker:
        broker.push(ROWS)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def dashboard(redis_url: str) -> Iterator[FlaskClient]:
    """rq-dashboard, as its command line builds it."""
    app = make_flask_app(config=None, username=None, password=None, url_prefix="")
    app.config["RQ_DASHBOARD_REDIS_URL"] = redis_url
    setup_rq_connection(app)
    with closing(app.redis_conn):
        yield app.test_client()


def json_of(dashboard: FlaskClient, path: str) -> dict[str, Any]:
    answer = dashboard.get(f"/0/data/{path}.json")
    assert answer.status_code == 200
    return dict(answer.json or {})


@pytest.mark.e2e
def test_rq_info_counts_the_jobs(redis_url: str, tmp_path: Path) -> None:
    ended = run([RQ, "info", "--raw"], {"RQ_REDIS_URL": redis_url}, tmp_path / "info.log")

    queues = [line for line in ended.stdout.splitlines() if line.startswith("queue ")]
    assert sorted(queues) == [
        "queue critical 2, 0 executing, 0 finished, 0 failed",
        "queue default 1, 0 executing, 0 finished, 0 failed",
    ]


def test_rq_dashboard_counts_and_lists_the_jobs(dashboard: FlaskClient) -> None:
    queues = json_of(dashboard, "queues")["queues"]
    jobs = json_of(dashboard, "jobs/critical/queued/8/asc/1")["jobs"]

    assert dashboard.get("/").status_code == 200
    assert {queue["name"]: queue["count"] for queue in queues} == {"critical": 2, "default": 1}
    assert [(job["id"], job["description"]) for job in jobs] == [
        (job_id(42, 3), "outbox message 42"),
        (job_id(43, 0), "outbox message 43"),
    ]


def test_rq_dashboard_shows_a_job(dashboard: FlaskClient) -> None:
    job = json_of(dashboard, f"job/{job_id(42, 3)}")

    assert dashboard.get(f"/0/view/job/{job_id(42, 3)}").status_code == 200
    assert (job["description"], job["origin"], job["status"]) == ("outbox message 42", "critical", "queued")
    assert (job["started_at"], job["ended_at"], job["exc_info"]) == (None, None, None)
    for name in ("created_at", "enqueued_at"):
        assert abs(datetime.now(UTC) - datetime.fromisoformat(job[name])) < timedelta(minutes=1)


def test_rq_dashboard_shows_a_job_that_a_worker_has_begun(dashboard: FlaskClient, redis: Redis) -> None:
    queue = Queue("critical", connection=redis)
    worker = Worker([queue], name="one", connection=redis)
    job = queue.fetch_job(job_id(42, 3))
    assert job is not None

    worker.prepare_execution(job)
    worker.prepare_job_execution(job)

    shown = json_of(dashboard, f"job/{job_id(42, 3)}")
    assert (shown["status"], shown["started_at"] is not None) == ("started", True)
    started = json_of(dashboard, "jobs/critical/started/8/asc/1")["jobs"]
    assert [each["description"] for each in started] == ["outbox message 42"]


def test_rq_exporter_counts_the_jobs(redis: Redis) -> None:
    """The calls of rq-exporter 3.1.0 (get_queue_jobs in its utils.py), which does not accept RQ 3 as a dependency.

    With an RQ 2 of its own, as it is installed, it reads the same keys.
    """
    counts = {
        queue.name: {
            JobStatus.QUEUED: queue.count,
            JobStatus.STARTED: queue.started_job_registry.get_job_count(cleanup=False),
            JobStatus.FINISHED: queue.finished_job_registry.get_job_count(cleanup=False),
            JobStatus.FAILED: queue.failed_job_registry.get_job_count(cleanup=False),
            JobStatus.DEFERRED: queue.deferred_job_registry.get_job_count(cleanup=False),
            JobStatus.SCHEDULED: queue.scheduled_job_registry.get_job_count(cleanup=False),
        }
        for queue in Queue.all(connection=redis)
    }

    nothing = dict.fromkeys(
        (JobStatus.STARTED, JobStatus.FINISHED, JobStatus.FAILED, JobStatus.DEFERRED, JobStatus.SCHEDULED), 0
    )
    assert counts == {
        "critical": {JobStatus.QUEUED: 2, **nothing},
        "default": {JobStatus.QUEUED: 1, **nothing},
    }
