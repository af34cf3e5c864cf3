"""The whole service on one machine: its processes, their settings and their folder."""

import os
import smtplib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from embedded.mail.folder import MailFolder
from embedded.programs.accounts import unprivileged_account
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer

ROOT = Path(__file__).parents[1]
DATABASE = "outbox"
MAIL_FROM = "Outbox Signup <no-reply@example.com>"

_ANSWER_SECONDS = 2.0
# gunicorn and the worker finish the work in hand.
_STOP_SECONDS = 25.0


class Piece(Protocol):
    """A part of the stack, running or not."""

    @property
    def name(self) -> str:
        """Its name in texts for people."""

    @property
    def running(self) -> bool:
        """Whether it is running."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def start(self) -> None:
        """Start it."""


@dataclass(frozen=True)
class Ports:
    """Where each part listens on 127.0.0.1."""

    api: int = field(default_factory=free_port)
    mailbox: int = field(default_factory=free_port)
    smtp: int = field(default_factory=free_port)
    postgres: int = field(default_factory=free_port)
    redis: int = field(default_factory=free_port)

    @classmethod
    def usual(cls) -> "Ports":
        """Return the usual ports, with free ones in place of those that are taken."""
        return cls(free_port(8080), free_port(8025), free_port(1025), free_port(5432), free_port(6379))


class Stack:
    """PostgreSQL, Redis, the mail catcher, the API, the relay and the worker. Each can be started alone."""

    def __init__(self, folder: Path, *, secret_key: str, ports: Ports | None = None) -> None:
        """Prepare everything in the folder, which is new or ours. Nothing is started yet."""
        self.folder = folder
        self.ports = ports or Ports()
        self._secret_key = secret_key
        self.logs = _private_folder(folder / "logs")
        self.postgres = PostgresServer(own_folder(folder / "postgres"), port=self.ports.postgres)
        self.postgres.log_file = self.logs / "postgres.log"
        self.redis = RedisServer(_private_folder(folder / "redis"), port=self.ports.redis)
        self.redis.log_file = self.logs / "redis.log"
        self.mails = MailFolder(_private_folder(folder / "mails"))
        self.mail_catcher = Program(self._mail_catcher_command())
        self.api = Program(self._api_command())
        self.relay = Program(self._relay_command())
        self.worker = Program(self._worker_command())

    @property
    def pieces(self) -> Sequence[Piece]:
        """All parts, in the order of their start."""
        return (self.postgres, self.redis, self.mail_catcher, self.api, self.relay, self.worker)

    @property
    def api_url(self) -> str:
        """The API's URL."""
        return f"http://{LOOPBACK}:{self.ports.api}"

    @property
    def mailbox_url(self) -> str:
        """The URL of the page that shows the mails."""
        return f"http://{LOOPBACK}:{self.ports.mailbox}"

    @property
    def smtp_url(self) -> str:
        """The URL of the SMTP server."""
        return f"smtp://{LOOPBACK}:{self.ports.smtp}"

    @property
    def database_url(self) -> str:
        """The URL of the service's database."""
        return self.postgres.url(DATABASE)

    def start_postgres(self) -> None:
        """Start PostgreSQL with a database that has the schema."""
        self.postgres.start()
        if not self.postgres.has_database(DATABASE):
            self.postgres.create_database(DATABASE)
        self.postgres.apply_schema(DATABASE, ROOT / "schema.sql")

    def start_mail_catcher(self) -> None:
        """Start the mail catcher and wait until it greets."""
        self.mail_catcher.start()
        self.mail_catcher.wait_ready(self._mail_catcher_greets)

    def start_api(self) -> None:
        """Start the API and wait until it accepts signups."""
        self.api.start()
        self.api.wait_ready(self._api_is_ready)

    def start(self) -> None:
        """Start all of it."""
        self.start_postgres()
        self.redis.start()
        self.start_mail_catcher()
        self.start_api()
        self.relay.start()
        self.worker.start()

    def stop(self) -> None:
        """Stop everything: first the service, which finishes its work in hand, then the servers that it needs."""
        programs = (self.api, self.relay, self.worker)
        with ThreadPoolExecutor(max_workers=len(programs)) as pool:
            list(pool.map(lambda program: program.stop(_STOP_SECONDS), programs))
        self.mail_catcher.stop()
        self.redis.stop()
        self.postgres.stop()

    def _api_command(self) -> Command:
        # Overrides gunicorn.conf.py: on a laptop no other machine may reach it.
        bind = f"{LOOPBACK}:{self.ports.api}"
        argv = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", bind, "api:create_app()"]
        settings = {"PORT": str(self.ports.api), "SECRET_KEY": self._secret_key, "MAILBOX_URL": self.mailbox_url}
        return self._command("api", argv, DATABASE_URL=self.database_url, **settings)

    def _relay_command(self) -> Command:
        argv = [sys.executable, "-m", "outbox_relay"]
        return self._command("relay", argv, DATABASE_URL=self.database_url, RQ_REDIS_URL=self.redis.url)

    def _worker_command(self) -> Command:
        argv = [str(Path(sys.executable).with_name("rq")), "worker", "critical", "default"]
        return self._command(
            "worker",
            argv,
            DATABASE_URL=self.database_url,
            RQ_REDIS_URL=self.redis.url,
            RQ_WORKER_CLASS="consumer.worker.OutboxWorker",
            RQ_CONNECTION_CLASS="consumer.redis_connection.SentinelRedis",
            SMTP_URL=self.smtp_url,
            MAIL_FROM=MAIL_FROM,
            BASE_URL=self.api_url,
            SECRET_KEY=self._secret_key,
            # Webhooks of this machine's own receivers.
            WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8,::1",
            # Tasks outside the project.
            **{
                name: os.environ[name]
                for name in ("OUTBOX_TASKS", "PYTHONPATH", "TEMPLATES_FOLDER")
                if name in os.environ
            },
        )

    def _mail_catcher_command(self) -> Command:
        ports = ["--smtp-port", str(self.ports.smtp), "--http-port", str(self.ports.mailbox)]
        argv = [sys.executable, "-m", "embedded.mail.catcher", "--folder", str(self.mails.folder), *ports]
        return self._command("mail catcher", argv)

    def _command(self, name: str, argv: list[str], **settings: str) -> Command:
        """Return the command of a process with its own settings and nothing else of the caller's environment."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        log_file = self.logs / f"{name.replace(' ', '-')}.log"
        return Command(name=name, argv=argv, env=inherited | settings, cwd=ROOT, log_file=log_file)

    def _api_is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/readyz", timeout=_ANSWER_SECONDS, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _mail_catcher_greets(self) -> bool:
        try:
            with smtplib.SMTP(LOOPBACK, self.ports.smtp, timeout=_ANSWER_SECONDS):
                return True
        except (OSError, smtplib.SMTPException):
            return False


def own_folder(folder: Path) -> Path:
    """Create a folder that no other user may list. PostgreSQL's account may enter it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o700 if unprivileged_account() is None else 0o711)
    return folder


def _private_folder(folder: Path) -> Path:
    """Create a folder for this user alone: mails and logs contain addresses and links."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
