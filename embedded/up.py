"""`python -m embedded up`: the whole service on this machine, until it is stopped."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.errors import AlreadyRunningError
from embedded.programs.ports import LOOPBACK
from embedded.programs.private_files import kept_secret
from embedded.programs.signals import ignore_signals, interrupt_on_signals
from embedded.stack import Ports, Stack, own_folder
from embedded.supervision import Supervisor
from embedded.terminal import Terminal

_LOCK_FILE = "lock"
_KEY_FILE = "secret_key"


def run_up(folder: Path) -> None:
    """Run the stack with its data in the folder until SIGINT, SIGTERM or SIGHUP, then stop all of it."""
    terminal = Terminal()
    own_folder(folder)
    with _only_one(folder):
        stack = Stack(folder, secret_key=kept_secret(folder / _KEY_FILE), ports=Ports.usual())
        interrupt_on_signals()
        try:
            terminal.say("Starting PostgreSQL, Redis, the mail catcher, the API, the relay and the worker …")
            stack.start()
            _show(stack, terminal)
            Supervisor(stack.pieces, terminal.say).run()
        except KeyboardInterrupt:
            terminal.say("Stopping. The data stays.")
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
            "Redis": f"redis://{LOOPBACK}:{stack.ports.redis}/0",
            "Redis' password": str(stack.redis.password_file),
            "SMTP": stack.smtp_url,
            "Logs": str(stack.logs),
            **data,
        }
    )
    user = '{"username":"ada","full_name":"Ada Lovelace","email":"ada@example.com","password":"correct horse"}'
    terminal.say(f"Open {stack.api_url}/ in a browser, or use the API and open the mailbox:")
    terminal.say(f"  curl --json '{user}' {stack.api_url}/v1/users")
    terminal.say("PostgreSQL and Redis ask for passwords. Only you can read the files that hold them:")
    terminal.say(f"  {stack.postgres.psql_path} '{stack.database_url}'")
    terminal.say(f"  REDISCLI_AUTH=$(cat '{stack.redis.password_file}') redis-cli -p {stack.ports.redis}")
    terminal.say("A process that ends is restarted. Ctrl-C stops everything.")


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however this process ends."""
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
