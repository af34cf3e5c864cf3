"""`python -m embedded up`: the whole service on this machine, until it is told to stop."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.errors import AlreadyRunningError, EmbeddedError
from embedded.signals import ignore_signals, interrupt_on_signals
from embedded.stack import Ports, Stack, own_folder
from embedded.supervision import Supervisor
from embedded.terminal import Terminal

_LOCK_FILE = "lock"
_KEY_FILE = "secret_key"


def run_up(folder: Path) -> None:
    """Run the stack with its data in the folder until SIGINT, SIGTERM or SIGHUP; then stop all of it."""
    terminal = Terminal()
    own_folder(folder)
    with _only_one(folder):
        stack = Stack(folder, secret_key=_secret_key(folder), ports=Ports.usual())
        interrupt_on_signals()
        try:
            terminal.say("Starting PostgreSQL, Redis, the mail catcher, the API, the relay and the worker …")
            stack.start()
            _show(stack, terminal)
            Supervisor(stack.pieces, terminal.say).run()
        except KeyboardInterrupt:
            terminal.say("Stopping; the data stay.")
        finally:
            ignore_signals()
            stack.stop()


def _show(stack: Stack, terminal: Terminal) -> None:
    data = {"Data": str(stack.folder)}
    if stack.folder not in stack.postgres.data.parents:
        data["PostgreSQL's data"] = str(stack.postgres.data)
    terminal.table(
        {
            "Sign up": f"{stack.api_url}/",
            "API": f"{stack.api_url}/v1/users",
            "Mailbox": stack.mailbox_url,
            "PostgreSQL": stack.database_url,
            "Redis": stack.redis.url,
            "SMTP": stack.smtp_url,
            "Logs": str(stack.logs),
            **data,
        }
    )
    user = '{"username":"ada","full_name":"Ada Lovelace","email":"ada@example.com","password":"correct horse"}'
    terminal.say(f"Open {stack.api_url}/ in a browser, or use the API and look into the mailbox:")
    terminal.say(f"  curl --json '{user}' {stack.api_url}/v1/users")
    terminal.say(f"  {stack.postgres.psql_path} {stack.database_url}")
    terminal.say("A process that ends is started again. Ctrl-C stops all of it.")


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back however this process ends."""
    with (folder / _LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            message = f"it already runs in {folder} (process {holder}): stop it there with Ctrl-C, or kill {holder}"
            raise AlreadyRunningError(message) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _secret_key(folder: Path) -> str:
    """Return the key of this folder, made at the first start: links in mails stay good over a restart."""
    file = folder / _KEY_FILE
    if not file.exists():
        made = folder / f"{_KEY_FILE}.part"
        made.unlink(missing_ok=True)
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as key_file:
            key_file.write(secrets.token_urlsafe(48))
        made.rename(file)
    key = file.read_text().strip()
    if not key:
        raise EmbeddedError(f"{file} is empty: delete it, and a new key is made (links in old mails then end)")
    return key
