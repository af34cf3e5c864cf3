"""Debian's Postfix in a folder of its own: on loopback, at a free port, with one mailbox for every recipient."""

import contextlib
import os
import pwd
import smtplib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as modern_policy
from pathlib import Path
from types import MappingProxyType
from typing import Final

from embedded.errors import EmbeddedError
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program

PROGRAM: Final = Path("/usr/sbin/postfix")
MASTER: Final = Path("/usr/lib/postfix/sbin/master")
ACCOUNT, GROUP = "postfix", "postdrop"
"""What the package makes when it is installed; Postfix runs as no others."""

_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

_MAIN: Final = {
    "compatibility_level": "3.6",
    "command_directory": "/usr/sbin",
    "daemon_directory": "/usr/lib/postfix/sbin",
    "mail_owner": ACCOUNT,
    "setgid_group": GROUP,
    "inet_interfaces": LOOPBACK,
    "inet_protocols": "ipv4",
    "myhostname": "mail.example.net",
    "mydestination": "",
    "mynetworks": "127.0.0.0/8",
    "alias_maps": "",
    "alias_database": "",
    "notify_classes": "",
    "smtpd_peername_lookup": "no",
    "disable_dns_lookups": "yes",
    # Every recipient of every domain has the same mailbox, in Maildir's form: the path ends with a slash.
    "virtual_mailbox_domains": "static:all",
    "virtual_mailbox_maps": "static:all/",
    "virtual_minimum_uid": "1",
}

_MASTER: Final = """
{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class DeliveredMail:
    """A mail as it lies in the mailbox."""

    recipient: str
    message: EmailMessage


class Postfix:
    """One instance, started by its master process so that it dies with the test run that started it."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the configuration; start nothing yet.

        Args:
            folder: what does not exist yet, in a folder that other accounts may pass through.
            settings: of main.cf, added to ours.

        """
        self.port = free_port()
        self._folder = folder
        self._configuration = folder / "etc"
        self._mailbox = folder / "mailbox"
        account = pwd.getpwnam(ACCOUNT)
        for place in (folder, self._configuration, folder / "queue", folder / "lib", self._mailbox):
            place.mkdir()
            place.chmod(0o755)
        for place in (folder / "lib", self._mailbox):
            os.chown(place, account.pw_uid, account.pw_gid)
        self._main = {
            **_MAIN,
            "queue_directory": str(folder / "queue"),
            "data_directory": str(folder / "lib"),
            "maillog_file": str(folder / "maillog"),
            "maillog_file_prefixes": str(folder),
            "virtual_mailbox_base": str(folder / "mailbox"),
            "virtual_uid_maps": f"static:{account.pw_uid}",
            "virtual_gid_maps": f"static:{account.pw_gid}",
            **settings,
        }
        self._write_main()
        (self._configuration / "master.cf").write_text(_MASTER.format(listen=f"{LOOPBACK}:{self.port}"))
        self._program = Program(
            Command("Postfix", [MASTER, "-c", self._configuration, "-s"], _ENVIRONMENT, folder, folder / "master.log")
        )

    @property
    def smtp_url(self) -> str:
        """The address for SMTP_URL."""
        return f"smtp://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "maillog").read_text()
        return ""

    def start(self) -> None:
        """Start Postfix on a checked configuration with the folders of its queue, and wait until it greets."""
        argv: list[str | Path] = [PROGRAM, "-c", self._configuration, "check"]
        checked = subprocess.run(argv, env=_ENVIRONMENT, check=False, capture_output=True, text=True)
        if checked.returncode != 0:
            raise EmbeddedError(f"`postfix check` failed:\n{checked.stderr}{self.log}")
        self._program.start()
        self._program.wait_ready(self._greets)

    def reload(self, **settings: str) -> None:
        """Change settings of main.cf while it runs."""
        self._main |= settings
        self._write_main()
        subprocess.run([PROGRAM, "-c", self._configuration, "reload"], env=_ENVIRONMENT, check=True)

    def stop(self) -> None:
        """End it with all its processes; the mails stay."""
        self._program.stop()

    def mails(self) -> list[DeliveredMail]:
        """Read what was delivered, the oldest first."""
        files = sorted((self._mailbox / "all" / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        parsed = [message_from_bytes(file.read_bytes(), policy=modern_policy) for file in files]
        return [DeliveredMail(str(mail["Delivered-To"]), mail) for mail in parsed]

    def _write_main(self) -> None:
        text = "".join(f"{name} = {value}\n" for name, value in self._main.items())
        (self._configuration / "main.cf").write_text(text)

    def _greets(self) -> bool:
        with contextlib.suppress(OSError, smtplib.SMTPException), smtplib.SMTP(LOOPBACK, self.port, timeout=2):
            return True
        return False
