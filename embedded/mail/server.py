"""The SMTP side of the mail catcher: aiosmtpd with faults that can be switched on while it runs."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from embedded.mail.faults import Faults, parse_faults
from embedded.mail.folder import FAULT_FILE, MailFolder
from embedded.programs.ports import LOOPBACK

_CHECK_SECONDS: Final = 0.2

_CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Security:
    """TLS and login, for tests of SMTP clients. With a context STARTTLS is required, unless TLS is implicit."""

    tls_context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    login: tuple[str, str] | None = None


class MailServer:
    """An SMTP server in a thread of its own."""

    def __init__(self, folder: MailFolder, security: Security) -> None:
        """Nothing is started yet."""
        self.folder = folder
        self.security = security
        self.connections: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        listening: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(port, listening), name="mail-server", daemon=True)
        self._thread.start()
        listening.result()

    def stop(self) -> None:
        """Close all connections and return when nothing listens any more."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        # The loop is closed already when the thread ended by itself.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def faults(self) -> Faults:
        """Return the faults that are switched on now."""
        try:
            return parse_faults((self.folder.folder / FAULT_FILE).read_text())
        except FileNotFoundError:
            return Faults()

    def _run(self, port: int, listening: Future[None]) -> None:
        asyncio.run(self._serve(port, listening))

    async def _serve(self, port: int, listening: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = self.security.tls_context if self.security.implicit_tls else None
        try:
            server = await self._loop.create_server(lambda: _Connection(self), LOOPBACK, port, ssl=context)
        except OSError as failure:
            listening.set_exception(failure)
            return
        listening.set_result(None)
        await self._stop.wait()
        server.close()
        for connection in list(self.connections):
            connection.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_lost(), _CLOSE_SECONDS)

    async def _all_lost(self) -> None:
        for connection in list(self.connections):
            await connection.lost.wait()


class _Connection(SMTP):
    """The session of one client. It is its own handler, whose hooks aiosmtpd finds by name."""

    def __init__(self, server: MailServer) -> None:
        self._server = server
        security = server.security
        super().__init__(
            self,
            hostname="mail-catcher.localhost",
            enable_SMTPUTF8=True,
            tls_context=None if security.implicit_tls else security.tls_context,
            require_starttls=security.tls_context is not None and not security.implicit_tls,
            auth_required=security.login is not None,
            authenticator=self._check_login,
            loop=asyncio.get_running_loop(),
        )
        self.lost = asyncio.Event()
        # aiosmtpd does not see TLS that was there from the start. Not its argument: that warns on each connection.
        self._auth_require_tls = security.login is None or (
            security.tls_context is not None and not security.implicit_tls
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self.lost.set()
        super().connection_lost(error)

    def abort(self) -> None:
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def push(self, status: str | bytes) -> None:
        faults = self._server.faults()
        answer = status.encode() if isinstance(status, str) else status
        # The lines of one answer make one step.
        if (slow := faults.has("slow")) and answer[3:4] != b"-":
            await asyncio.sleep(slow.seconds)
        if faults.has("drip"):
            for byte in answer + b"\r\n":
                self._writer.write(bytes([byte]))
                await asyncio.sleep(1)
        else:
            await super().push(answer)
        if answer.startswith(b"421"):
            await self._drop()

    async def _handle_client(self) -> None:
        try:
            if answer := await self._fault("greet"):
                await self.push(answer)
                await self._drop()
            await super()._handle_client()
        finally:
            self.abort_if_unfinished()

    def abort_if_unfinished(self) -> None:
        """Close the connection of a client that left while a fault kept it waiting."""
        if self.transport is not None:
            self.transport.close()

    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802  # aiosmtpd's name
        await self._answer_or("auth", super().smtp_AUTH, arg)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802  # aiosmtpd's name
        await self._answer_or("mail", super().smtp_MAIL, arg)

    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802  # aiosmtpd's name
        await self._answer_or("quit", super().smtp_QUIT, arg)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # aiosmtpd's name
        if self._server.faults().has("drop-before-data"):
            await self._drop()
        await super().smtp_DATA(arg)

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := await self._fault("rcpt", (address,)):
            return answer
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        recipients = [str(recipient) for recipient in envelope.rcpt_tos]
        if answer := await self._fault("data", recipients):
            return answer
        self._server.folder.keep(envelope.mail_from or "", recipients, envelope.original_content or b"")
        if self._server.faults().has("drop-after-accept"):
            await self._drop()
        return "250 OK"

    async def _answer_or(self, step: str, go_on: Callable[[Any], Awaitable[None]], arg: str | None) -> None:
        if answer := await self._fault(step):
            await self.push(answer)
        else:
            await go_on(arg)

    async def _fault(self, step: str, addresses: Sequence[str] = ()) -> str | None:
        """Return the fault's answer to the step, or None for no fault. Never returns for a step that hangs."""
        fault = self._server.faults().at(step, tuple(addresses))
        if fault == "hang":
            if step == "data":
                await self._drop_when_it_ends(step, addresses)
            await _for_ever()
        return f"{fault} fault switched on for {step}" if fault else None

    async def _drop_when_it_ends(self, step: str, addresses: Sequence[str]) -> NoReturn:
        """Close the connection when the fault is switched off: a client may wait ten minutes for the answer."""
        while self._server.faults().at(step, tuple(addresses)) == "hang":  # noqa: ASYNC110 - the fault is a line in a file
            await asyncio.sleep(_CHECK_SECONDS)
        await self._drop()

    async def _drop(self) -> NoReturn:
        if self.transport is not None:
            self.transport.close()
        await _for_ever()

    def _check_login(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        login = self._server.security.login
        matches = login is not None and (given.login.decode(), given.password.decode()) == login
        return AuthResult(success=matches, handled=False)


async def _for_ever() -> NoReturn:
    """Wait until the client leaves: aiosmtpd then cancels the task that serves it."""
    while True:
        await asyncio.Event().wait()
