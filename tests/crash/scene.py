"""A scene for crash tests: a database, a Redis and a mail server of its own, and real processes."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from psycopg import Connection
from redis import Redis

from embedded.mail.catcher import MailCatcher
from embedded.mail.folder import CaughtMail
from embedded.programs.program import Command, Program
from embedded.servers.databases import Databases
from embedded.servers.redis import RedisServer
from shared.database.connections import connect
from shared.outbox.messages import SendVerifyEmail
from shared.rq_format.keys import Keys
from tests.crash import effects
from tests.programs.preloading import Preloaded, PreloadedProgram, rq_key_prefix
from tests.reused_database import ReusedDatabase
from tests.rows import ids_by_message_id
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
NOTE = "note"
# Ten scenes ask at once, each for seconds.
_QUIET_PAUSE_SECONDS = 0.1
DOMAIN = "crash.example.org"
SETTINGS = {
    "MAIL_FROM": f"Signup <signup@{DOMAIN}>",
    "SECRET_KEY": "the key of the crash tests: 32 characters",
    "OUTBOX_PUBLISH_LEASE_SECONDS": "1",
    "OUTBOX_RUN_LEASE_SECONDS": "4",
    "OUTBOX_BACKOFF_SCALE": "0.02",
    "OUTBOX_POLL_SECONDS": "0.2",
    "WORKER_CONCURRENCY": "1",
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "OUTBOX_TASKS": f"consumer.tasks,{effects.MODULE}",
}
OUTBOX_WORKER = {"RQ_WORKER_CLASS": "consumer.worker.OutboxWorker"}
STOCK_WORKER: Mapping[str, str] = {}


@dataclass(frozen=True)
class Stage:
    """The servers that all scenes share, and the process that their programs are forked from.

    In Redis each scene has one of the numbered databases for itself, since RQ reads its key prefix once, when it is
    imported.
    """

    databases: Databases
    template: str
    redis: RedisServer
    redis_numbers: SimpleQueue[int]
    preloaded: Preloaded
    folder: Path
    idle_databases: list[ReusedDatabase] = field(default_factory=list)

    @contextmanager
    def scene(self, **settings: str) -> Iterator["Scene"]:
        """Create a scene, and remove all of it at the end."""
        name = f"crash_{secrets.token_hex(8)}"
        redis_number = self.redis_numbers.get()
        redis_url = self.redis.url_of(redis_number)
        try:
            database = self.idle_databases.pop()
        except IndexError:
            database = ReusedDatabase(self.databases, self.template)
        database_url = database.give()
        folder = self.folder / name
        mailbox = MailCatcher(folder / "mail")
        mailbox.start()
        fixed = {
            "DATABASE_URL": database_url,
            "RQ_REDIS_URL": redis_url,
            "RQ_KEY_PREFIX": rq_key_prefix(),
            "SMTP_URL": mailbox.smtp_url,
        }
        with Redis.from_url(redis_url) as redis, connect(database_url, "crash-test") as connection:
            scene = Scene(folder, mailbox, connection, redis, self.preloaded, {**SETTINGS, **fixed, **settings})
            try:
                yield scene
            except AssertionError as error:
                error.add_note(scene.report())
                raise
            finally:
                scene.end()
                mailbox.stop()
                scene.empty_redis()
                self.redis_numbers.put(redis_number)
        database.take_back()
        self.idle_databases.append(database)
        shutil.rmtree(folder)


def stage_of(databases: Databases, template: str, redis: RedisServer, origin: Preloaded, folder: Path) -> Stage:
    """Return a stage of running servers. Redis needs `databases`: one more than scenes at a time."""
    numbers: SimpleQueue[int] = SimpleQueue()
    for number in range(1, int(redis.settings["databases"])):
        numbers.put(number)
    return Stage(databases, template, redis, numbers, origin, folder)


class Scene:
    """The servers and processes of one test, and what the test may do with them."""

    def __init__(
        self,
        folder: Path,
        mailbox: MailCatcher,
        connection: Connection[Any],
        redis: Redis,
        preloaded: Preloaded,
        settings: dict[str, str],
    ) -> None:
        self.folder = folder
        self.mailbox = mailbox
        self.connection = connection
        self.redis = redis
        self.settings = settings
        self._preloaded = preloaded
        self._programs: list[Program] = []

    def sign_up(self, count: int = 1, task: str = SendVerifyEmail.task, queue: str = "critical") -> list[int]:
        """Write users and one message for each, and return the messages' ids."""
        rows = self.connection.execute(
            """
            WITH signed_up AS (
                INSERT INTO users (username, email, full_name, hashed_password)
                SELECT name, name || '@example.com', 'Full name of ' || name, 'x'
                  FROM (SELECT %(stem)s || '_' || number AS name FROM generate_series(1, %(count)s) AS number) AS names
                RETURNING username
            )
            INSERT INTO outbox (task, payload, queue, destination)
            SELECT %(task)s, jsonb_build_object('username', username), %(queue)s, 'mail' FROM signed_up
            RETURNING id
            """,
            {"stem": f"user_{secrets.token_hex(4)}", "count": count, "task": task, "queue": queue},
        ).fetchall()
        return [id_ for (id_,) in rows]

    # ---- processes

    def start(self, name: str, program: str, *options: str, env: Mapping[str, str] = STOCK_WORKER) -> Program:
        """Start a program through the launcher."""
        argv = [sys.executable, "-m", "tests.crash.launch", *options, program]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = {name: text for name, text in {**inherited, **self.settings, **env}.items() if text}
        command = Command(name=name, argv=argv, env=settings, cwd=ROOT, log_file=self.folder / f"{name}.log")
        started = PreloadedProgram(command, self._preloaded)
        started.start()
        self._programs.append(started)
        return started

    def start_relay(self, *options: str) -> Program:
        """Start a relay with the launcher's short waits."""
        return self.start("relay", "relay", *options)

    def log(self, program: Program) -> str:
        """Return a program's log."""
        return program.command.log_file.read_text(errors="replace")

    def end(self, but: Program | None = None) -> None:
        """Kill all programs, with the work horses of killed workers."""
        for program in self._programs:
            if program is not but:
                program.kill(with_children=True)
        self._programs = [] if but is None else [but]

    def clear(self, but: Program | None = None) -> None:
        """Reset the scene. One program may continue."""
        self.end(but)
        self.mailbox.clear()
        self.empty_redis()
        self.connection.execute(
            "TRUNCATE users, verify_emails, outbox, outbox_finished, webhook_endpoints, webhook_secrets"
        )
        for file in self.folder.glob("*.log"):
            file.write_text("")
        (self.folder / NOTE).unlink(missing_ok=True)

    # ---- what has come of it

    def count(self, condition: str = "true", table: str = "outbox") -> int:
        """Return the number of rows."""
        row = self.connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()
        assert row is not None
        return int(row[0])

    def wait_for_quiet(self, timeout: float, keep_alive: Callable[[], object] = lambda: None) -> None:
        """Wait until all messages are done or dead."""

        def is_quiet() -> bool:
            keep_alive()
            return self.count("status <> 'dead'") == 0

        wait_until(is_quiet, timeout, "all messages to be done or dead", _QUIET_PAUSE_SECONDS)

    def mails_of(self, message_id: int) -> list[CaughtMail]:
        """Return the copies of a message's mail, by their Message-ID."""
        ids = ids_by_message_id(self.connection, DOMAIN)
        return [mail for mail in self.mailbox.mails() if ids[mail.message["Message-ID"]] == message_id]

    def copies(self, ids: Sequence[int]) -> dict[int, int]:
        """Return how many copies of each message's mail have arrived."""
        by_message_id = ids_by_message_id(self.connection, DOMAIN)
        found = dict.fromkeys(ids, 0)
        for mail in self.mailbox.mails():
            found[by_message_id[mail.message["Message-ID"]]] += 1
        return found

    def report(self) -> str:
        """Return all that is known, for a failed test."""
        rows = self.connection.execute(
            "SELECT to_jsonb(m) FROM outbox_messages AS m ORDER BY status = 'done', id LIMIT 5"
        ).fetchall()
        lists = [f"{queue}: {self.redis.lrange(self._queue_key(queue), 0, 20)!r}" for queue in ("critical", "default")]
        logs = []
        for program in self._programs:
            with contextlib.suppress(OSError):
                logs.append(f"--- {program.name}, exit code {program.exit_code}\n{self.log(program)[-4000:]}")
        return "\n".join([*(str(row) for (row,) in rows), *lists, *logs])

    def _queue_key(self, queue: str) -> str:
        return Keys(self.settings["RQ_KEY_PREFIX"]).queue(queue)

    def take_jobs_away(self) -> None:
        """Delete all jobs, like a worker that dies after its pops."""
        self.redis.delete(*map(self._queue_key, ("critical", "default")))

    def empty_redis(self) -> None:
        """Delete everything that this scene has in Redis."""
        self.redis.flushdb()
