"""The web page on 127.0.0.1 that shows the caught mails, and previews of each kind."""

import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, select_autoescape

from embedded.mail.folder import CaughtMail, MailFolder
from embedded.mail.peers import may_be_served
from embedded.mail.previews import PREVIEWS, preview
from embedded.programs.ports import LOOPBACK

_MAILS_PER_PAGE = 100
_MAIL_PATH = re.compile(r"/mails/([0-9-]+)(/html|/raw)?")
_PREVIEW_PATH = re.compile(r"/previews/([a-z_]+)(/html|/raw)?")
_OWN_NAMES = {"127.0.0.1", "localhost"}

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'"
# A mail is untrusted text: no script, no form, nothing loaded from another site, even if opened outside its frame.
_MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_templates = Environment(loader=PackageLoader("embedded"), autoescape=select_autoescape(default=True))


class MailboxPage:
    """The HTTP server of the page, in threads of its own."""

    def __init__(self, folder: MailFolder) -> None:
        """Nothing is started yet."""
        self._folder = folder
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._server = _Server(port, self._folder)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="mailbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close it."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    """An HTTP server with the folder that its requests read."""

    def __init__(self, port: int, folder: MailFolder) -> None:
        self.address = (LOOPBACK, port)
        super().__init__(self.address, _Request)
        self.folder = folder


class _Request(BaseHTTPRequestHandler):
    """One request."""

    # A client that connects and sends nothing must not hold a thread forever.
    timeout = 10

    def do_GET(self) -> None:
        """Return the list, a mail, or a part of one."""
        # Another site could point a name of its own to 127.0.0.1 and read this page (DNS rebinding).
        if (self.headers.get("Host") or "").partition(":")[0] not in _OWN_NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if not may_be_served(self.client_address, cast("_Server", self.server).address):
            self.send_error(HTTPStatus.FORBIDDEN, explain="These mails are shown to the user who started the mailbox.")
            return
        address = urlsplit(self.path)
        if address.path == "/":
            self._send(self._list(address.query), "text/html", _PAGE_POLICY)
        elif (found := _MAIL_PATH.fullmatch(address.path)) and (mail := self._folder.mail(found[1])):
            self._send_mail(mail, "/mails", found[2])
        elif (found := _PREVIEW_PATH.fullmatch(address.path)) and (mail := preview(found[1])):
            self._send_mail(mail, "/previews", found[2])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, *_: object) -> None:
        """Log nothing: request lines would clutter the terminal."""

    @property
    def _folder(self) -> MailFolder:
        return cast("_Server", self.server).folder

    def _list(self, query: str) -> str:
        names = self._folder.names()[::-1]
        asked = parse_qs(query).get("page", ["1"])[0]
        page = int(asked) if re.fullmatch(r"[1-9]\d{0,5}", asked) else 1
        shown = names[(page - 1) * _MAILS_PER_PAGE : page * _MAILS_PER_PAGE]
        mails = [mail for name in shown if (mail := self._folder.mail(name))]
        more = page * _MAILS_PER_PAGE < len(names)
        return _templates.get_template("mailbox.html").render(
            mails=mails, count=len(names), page=page, more=more, previews=list(PREVIEWS)
        )

    def _send_mail(self, mail: CaughtMail, folder: str, part: str | None) -> None:
        if part == "/html":
            self._send(mail.html, "text/html", _MAIL_POLICY)
        elif part == "/raw":
            self._send(mail.raw.decode("utf-8", "replace"), "text/plain", _MAIL_POLICY)
        else:
            self._send(_templates.get_template("mail.html").render(mail=mail, folder=folder), "text/html", _PAGE_POLICY)

    def _send(self, text: str, kind: str, policy: str) -> None:
        # A mail's bytes may decode to lone surrogates, which UTF-8 cannot encode.
        body = text.encode("utf-8", "replace")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)
