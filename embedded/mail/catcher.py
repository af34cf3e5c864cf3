"""The mail catcher: an SMTP server and a web page in one process.

As a process of its own: `python -m embedded.mail.catcher --folder F --smtp-port N --http-port M`.
"""

import errno
import signal
import threading
from pathlib import Path

import click

from embedded.mail.folder import MailFolder
from embedded.mail.mailbox_page import MailboxPage
from embedded.mail.server import MailServer, Security
from embedded.programs.ports import LOOPBACK, free_port

_PORT_ATTEMPTS = 5


class MailCatcher(MailFolder):
    """An SMTP server and its page in threads of this process. Its ports stay the same over stop() and start()."""

    def __init__(
        self,
        folder: Path,
        *,
        smtp_port: int | None = None,
        http_port: int | None = None,
        security: Security | None = None,
    ) -> None:
        """Prepare both. Nothing is started yet."""
        super().__init__(folder)
        self._smtp_port = smtp_port
        self._http_port = http_port
        self._server = MailServer(self, security or Security())
        self._page = MailboxPage(self)

    @property
    def smtp_port(self) -> int:
        """The port of the SMTP server."""
        if self._smtp_port is None:
            self._smtp_port = free_port()
        return self._smtp_port

    @property
    def http_port(self) -> int:
        """The port of the page."""
        if self._http_port is None:
            self._http_port = free_port()
        return self._http_port

    @property
    def smtp_url(self) -> str:
        """The URL for SMTP_URL, without a login."""
        return f"smtp://{LOOPBACK}:{self.smtp_port}"

    @property
    def http_url(self) -> str:
        """The URL of the page."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def start(self) -> None:
        """Listen on both ports."""
        smtp_chosen, http_chosen = self._smtp_port is not None, self._http_port is not None
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._page.start(self.http_port)
                self._server.start(self.smtp_port)
            except OSError as failure:
                self._page.stop()
                last = attempt == _PORT_ATTEMPTS - 1
                if failure.errno != errno.EADDRINUSE or last or (smtp_chosen and http_chosen):
                    raise
                # Another program may take a port between its choice and the listen.
                self._smtp_port = self._smtp_port if smtp_chosen else None
                self._http_port = self._http_port if http_chosen else None
            else:
                return

    def stop(self) -> None:
        """Close both. The mails stay."""
        self._server.stop()
        self._page.stop()


@click.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where mails are kept.")
@click.option("--smtp-port", type=int, required=True, help="Port on 127.0.0.1 of the SMTP server.")
@click.option("--http-port", type=int, required=True, help="Port on 127.0.0.1 of the page that shows them.")
def main(folder: Path, smtp_port: int, http_port: int) -> None:
    """Catch mails until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    catcher = MailCatcher(folder, smtp_port=smtp_port, http_port=http_port)
    catcher.start()
    click.echo(f"takes mails at {catcher.smtp_url}, shows them at {catcher.http_url}, keeps them in {catcher.folder}")
    stop.wait()
    catcher.stop()


if __name__ == "__main__":
    main()
