"""Exim in a root folder of its own: on loopback, at a free port, with one mailbox for every recipient."""

import contextlib
import os
import smtplib
import stat
from pathlib import Path
from typing import Final

from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from tests.exim.packages import PACKAGE, unpack

PROGRAM: Final = "/usr/sbin/exim4"

_ACCOUNT: Final = "Debian-exim"
_UID: Final = 8025
"""Of an account that the folder's own /etc/passwd has. Exim is built for that name, and refuses to run without it."""

_CONFIGURATION: Final = """
primary_hostname = mail.example.net
local_interfaces = {loopback}
daemon_smtp_ports = {port}
disable_ipv6
host_lookup =
spool_directory = /spool
log_file_path = /log/%slog
log_selector = +smtp_connection +smtp_no_mail
keep_environment =
tls_advertise_hosts =
# What is accepted is delivered at once, however much comes in on a connection.
smtp_accept_queue_per_connection = 0
{limits}
acl_smtp_mail = sender
acl_smtp_rcpt = content
acl_smtp_data = content

begin acl
sender:
{sender}
  accept
content:
  accept

begin routers
everybody:
  driver = accept
  transport = mailbox

begin transports
mailbox:
  driver = appendfile
  directory = /mailbox
  maildir_format
  user = {account}
  envelope_to_add
"""

_CONFIGURATION_FILE: Final = "etc/exim4/exim4.conf"
"""Where Debian's Exim looks first. From a file that is named with -C its deliveries would not run as root."""

_FOLDERS: Final = ("dev", "etc/exim4", "log", "mailbox", "spool", "tmp")


class Exim:
    """Unpacked once; each start may have other limits. What was delivered stays."""

    def __init__(self, root: Path) -> None:
        """Unpack it into a folder that does not exist yet."""
        unpack(PACKAGE, root)
        for name in _FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("log", "mailbox", "spool"):
            os.chown(root / name, _UID, _UID)
        device = root / "dev" / "null"
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.chmod(0o666)
        (root / "etc" / "passwd").write_text(f"root:x:0:0::/:\n{_ACCOUNT}:x:{_UID}:{_UID}::/:\n")
        (root / "etc" / "group").write_text(f"root:x:0:\n{_ACCOUNT}:x:{_UID}:\n")
        self.port = free_port()
        self._root = root
        # The queue is looked through for what a kill has left in it.
        argv: list[str | Path] = ["/usr/sbin/chroot", root, PROGRAM, "-bdf", "-q2s"]
        self._program = Program(Command("Exim", argv, {"PATH": "/usr/sbin:/usr/bin"}, root, root / "exim.out"))

    @property
    def smtp_url(self) -> str:
        """The address for SMTP_URL."""
        return f"smtp://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return "".join(file.read_text() for file in sorted((self._root / "log").iterdir()))

    def start(self, *limits: str, sender: str = "") -> None:
        """Start it with these lines in its main section, and these in what it checks at MAIL; wait until it greets."""
        text = _CONFIGURATION.format(
            loopback=LOOPBACK, port=self.port, limits="\n".join(limits), sender=sender, account=_ACCOUNT
        )
        (self._root / _CONFIGURATION_FILE).write_text(text)
        self._program.start()
        self._program.wait_ready(self._greets)

    def kill(self) -> None:
        """End it as kill -9 does, with the processes of its connections."""
        self._program.kill(with_children=True)

    def recipients(self) -> list[str]:
        """Return to whom mails were delivered."""
        found = []
        for file in (self._root / "mailbox" / "new").glob("*"):
            [line] = [line for line in file.read_text().splitlines() if line.startswith("Envelope-to: ")]
            found.append(line.removeprefix("Envelope-to: "))
        return found

    def _greets(self) -> bool:
        with contextlib.suppress(OSError, smtplib.SMTPException), smtplib.SMTP(LOOPBACK, self.port, timeout=2):
            return True
        return False
