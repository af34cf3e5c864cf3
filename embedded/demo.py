"""`python -m embedded demo`: sign a user up while Redis is down, start Redis, and follow the mails."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psycopg
from psycopg.rows import dict_row

from embedded.mail.folder import CaughtMail
from embedded.programs.accounts import unprivileged_account
from embedded.programs.signals import ignore_signals, interrupt_on_signals
from embedded.stack import Stack
from embedded.terminal import Terminal

_USER = {
    "username": "ada",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "password": "correct horse battery staple",
}
_MAIL_SECONDS = 30.0
_SETTLE_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


class DemoError(Exception):
    """The service broke one of its guarantees."""


def run_demo() -> int:
    """Run the demo and return the exit code. Only a failure leaves something behind: the logs."""
    terminal = Terminal()
    interrupt_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="outbox-demo-"))
    if unprivileged_account() is not None:
        # PostgreSQL's account has to be able to enter it. It is a new folder of ours.
        folder.chmod(0o711)
    stack = Stack(folder, secret_key=secrets.token_urlsafe(48))
    exit_code = 1
    try:
        _show(stack, terminal)
        exit_code = 0
    except KeyboardInterrupt:
        terminal.failed("Interrupted.")
        exit_code = 130
    except Exception as error:  # noqa: BLE001 - any failure becomes one line, and the logs are kept
        terminal.failed(f"{type(error).__name__}: {error}")
        terminal.say(f"The logs are in {stack.logs}")
    finally:
        ignore_signals()
        _remove_all(stack, keep_logs=exit_code == 1)
        terminal.say("Everything is stopped and removed.")
    return exit_code


def _show(stack: Stack, terminal: Terminal) -> None:
    terminal.title("A signup that commits is mailed, even while the queue is down.")
    terminal.say("")
    _start_all_but_redis(stack, terminal)
    _sign_up(stack, terminal)
    _show_outbox(stack, terminal)
    stack.redis.start()
    terminal.step("Redis starts. Nothing has to be repeated by hand.")
    mail = stack.mails.wait_for(1, _MAIL_SECONDS)[0]
    terminal.step(f"The verification mail arrives at {', '.join(mail.recipients)}.", f"Subject: {mail.subject}")
    _open_the_link(stack, terminal, mail)
    mail = stack.mails.wait_for(2, _MAIL_SECONDS)[1]
    terminal.step(f"The welcome mail arrives at {', '.join(mail.recipients)}.", f"Subject: {mail.subject}")
    _show_end(stack, terminal)
    terminal.say("")
    terminal.title(f"Done in {terminal.seconds:.1f} s. `make up` keeps it running, with a page that shows the mails.")


def _start_all_but_redis(stack: Stack, terminal: Terminal) -> None:
    stack.start_postgres()
    terminal.step("PostgreSQL runs, with the tables of schema.sql.")
    stack.start_mail_catcher()
    terminal.step("A mail server runs that catches every mail.")
    stack.start_api()
    stack.relay.start()
    stack.worker.start()
    terminal.step("The API, the relay and the worker run. Redis does not run.")


def _sign_up(stack: Stack, terminal: Terminal) -> None:
    before = time.monotonic()
    answer = httpx.post(f"{stack.api_url}/v1/users", json=_USER, timeout=10, trust_env=False)
    milliseconds = (time.monotonic() - before) * 1000
    if answer.status_code != httpx.codes.CREATED:
        raise DemoError(f"the signup was answered with {answer.status_code}: {answer.text}")
    terminal.step(
        f"Ada signs up: {answer.status_code} {answer.reason_phrase} in {milliseconds:.0f} ms.",
        "POST /v1/users",
        answer.text.strip(),
    )


def _show_outbox(stack: Stack, terminal: Terminal) -> None:
    waiting = _messages(stack)
    if [message["status"] for message in waiting] != ["pending"]:
        raise DemoError(f"expected one pending message in the outbox, found {waiting}")
    terminal.step("Her message waits in PostgreSQL, committed together with her account.", *_described(waiting))


def _open_the_link(stack: Stack, terminal: Terminal, mail: CaughtMail) -> None:
    link = next((link for link in mail.links if link.startswith(f"{stack.api_url}/")), None)
    if link is None:
        raise DemoError(f"the mail contains no link to {stack.api_url}")
    answer = httpx.post(link, headers={"Accept": "application/json"}, timeout=10, trust_env=False)
    if answer.json() != {"is_verified": True}:
        raise DemoError(f"the link was answered with {answer.status_code}: {answer.text}")
    [verified] = _rows(stack, "SELECT is_email_verified FROM users WHERE username = 'ada'")
    if not verified["is_email_verified"]:
        raise DemoError("the link was accepted, but the user is not verified")
    terminal.step("Ada opens its link: her address is verified.", f"POST {link}", answer.text.strip())


def _show_end(stack: Stack, terminal: Terminal) -> None:
    """Wait for the worker's commit, which comes after the mail."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    messages = _messages(stack)
    while not all(message["status"] == "done" for message in messages):
        if time.monotonic() > deadline:
            raise DemoError(f"not every message is done: {messages}")
        time.sleep(_PAUSE_SECONDS)
        messages = _messages(stack)
    mails = len(stack.mails.names())
    if mails != len(messages):
        raise DemoError(f"{len(messages)} messages made {mails} mails")
    terminal.step("Both messages are done, each mailed once.", *_described(messages))


def _messages(stack: Stack) -> list[dict[str, object]]:
    return _rows(stack, "SELECT id, task, status, attempt FROM outbox_messages ORDER BY id")


def _described(messages: Sequence[dict[str, object]]) -> list[str]:
    return [
        f"outbox_messages  id {message['id']}  {message['task']}  status {message['status']}"
        f"  attempts {message['attempt']}"
        for message in messages
    ]


def _rows(stack: Stack, statement: str) -> list[dict[str, object]]:
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def _remove_all(stack: Stack, *, keep_logs: bool) -> None:
    stack.stop()
    stack.postgres.remove()
    for entry in stack.folder.iterdir():
        if not (keep_logs and entry == stack.logs):
            shutil.rmtree(entry)
    if not keep_logs:
        stack.folder.rmdir()
