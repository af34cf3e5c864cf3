#!/opt/mailpit/bin/python
"""The part of Mailpit that compose.yaml and its users rely on: it takes every mail, and shows what it took."""

import email
import email.policy
import json
import os
import signal
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, Envelope, Session

SMTP_PORT = int(os.environ.get("MP_SMTP_BIND_ADDR", "0.0.0.0:1025").rpartition(":")[2])
HTTP_PORT = int(os.environ.get("MP_UI_BIND_ADDR", "0.0.0.0:8025").rpartition(":")[2])


class Mailbox:
    """The mails, each a file in the temporary folder: as Mailpit, it fails where that cannot be written."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mailpit-"))
        self._messages: list[dict[str, Any]] = []

    def add(self, content: bytes) -> None:
        """Keep a mail."""
        number = len(self._messages) + 1
        (self._folder / f"{number}.eml").write_bytes(content)
        mail = email.message_from_bytes(content, policy=email.policy.default)
        self._messages.append(
            {
                "ID": str(number),
                "MessageID": str(mail["Message-ID"]).strip("<>"),
                "From": addresses(mail["From"])[0],
                "To": addresses(mail["To"]),
                "Subject": mail["Subject"],
            }
        )

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take what aiosmtpd has received."""
        assert isinstance(envelope.content, bytes)
        self.add(envelope.content)
        return "250 2.0.0 Ok: queued"

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Return the content type and the body of what Mailpit has at this path."""
        match path.partition("?")[0].strip("/").split("/"):
            case ["readyz" | "livez"]:
                return "text/plain", b"ok"
            case ["api", "v1", "messages"]:
                page = {"total": len(self._messages), "messages": self._messages[::-1]}
                return "application/json", json.dumps(page).encode()
            case ["api", "v1", "message", number, "raw"] if (file := self._folder / f"{number}.eml").exists():
                return "text/plain", file.read_bytes()
        return None


def addresses(header: Any) -> list[dict[str, str]]:
    """Return the addresses of a header as Mailpit names them."""
    return [{"Name": each.display_name, "Address": each.addr_spec} for each in header.addresses]


def web(mailbox: Mailbox) -> ThreadingHTTPServer:
    """Return the server of Mailpit's API."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = mailbox.answer(self.path) or ("text/plain", b"404 page not found")
            self.send_response(200 if mailbox.answer(self.path) else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("0.0.0.0", HTTP_PORT), Handler)  # noqa: S104


def main() -> None:
    """Serve until SIGTERM; or, as the health command, ask the server that runs."""
    if sys.argv[1:] == ["readyz"]:
        with urlopen(f"http://127.0.0.1:{HTTP_PORT}/readyz", timeout=5) as response:
            sys.exit(response.status != 200)
    mailbox = Mailbox()
    controller = UnthreadedController(mailbox, hostname="0.0.0.0", port=SMTP_PORT)  # noqa: S104
    controller.begin()
    threading.Thread(target=web(mailbox).serve_forever, daemon=True).start()
    for stop in (signal.SIGTERM, signal.SIGINT):
        controller.loop.add_signal_handler(stop, controller.loop.stop)
    controller.loop.run_forever()


if __name__ == "__main__":
    main()
