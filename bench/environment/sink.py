"""A mail server that keeps nothing and costs next to nothing, so that it is not what limits the senders.

In a process of its own: `python -m bench.environment.sink --port N --delay-ms D`. aiosmtpd takes about a millisecond a
mail, which would be most of what is measured; this one answers from a table and looks only for line ends and the last
dot. It offers PIPELINING as Postfix does. Three verbs of its own report to the bench: XCOUNT how many mails
were accepted, XTIMES when (CLOCK_MONOTONIC, nanoseconds), XDELAY how long from now on it takes to accept a mail.
"""

import asyncio
import time
from array import array
from typing import Final

import click

from embedded.programs.ports import LOOPBACK

_ANSWERS: Final = {
    b"EHLO": b"250-sink.localhost\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"HELO": b"250 sink.localhost\r\n",
    b"MAIL": b"250 OK\r\n",
    b"RCPT": b"250 OK\r\n",
    b"RSET": b"250 OK\r\n",
    b"NOOP": b"250 OK\r\n",
}
_END: Final = b"\r\n.\r\n"


class Accepted:
    """What all connections share: when mails were accepted, and how long that takes."""

    def __init__(self, delay_seconds: float) -> None:
        """Begin with none."""
        self.delay_seconds = delay_seconds
        self.times = array("Q")


class Connection(asyncio.Protocol):
    """One client. Commands may come several at once."""

    def __init__(self, accepted: Accepted) -> None:
        """Wait for a client."""
        self._accepted = accepted
        self._unread = b""
        self._in_mail = False
        self._accepting = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a TCP server's protocol gets
        self._transport = transport
        self._write(b"220 sink.localhost\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer every whole command."""
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        while self._unread and not self._accepting:
            mark = _END if self._in_mail else b"\n"
            # The blank line before the dot may be the DATA command's own.
            end = self._unread.find(mark)
            if end < 0:
                return
            command, self._unread = self._unread[:end], self._unread[end + len(mark) :]
            if self._in_mail:
                self._in_mail = False
                self._accept()
            else:
                self._obey(command.rstrip())

    def _accept(self) -> None:
        delay = self._accepted.delay_seconds
        if delay:
            self._accepting = True
            asyncio.get_running_loop().call_later(delay, self._accepted_now)
        else:
            self._accepted_now()

    def _accepted_now(self) -> None:
        self._accepting = False
        self._accepted.times.append(time.monotonic_ns())
        self._write(b"250 OK\r\n")
        self._go_on()

    def _obey(self, command: bytes) -> None:
        verb, _, argument = command.partition(b" ")
        verb = verb[:4].upper() if not verb.startswith(b"X") else verb
        if verb == b"DATA":
            self._in_mail = True
            self._write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._write(b"221 bye\r\n")
            if self._transport is not None:
                self._transport.close()
        elif verb.startswith(b"X"):
            self._write(self._tell(verb, argument))
        else:
            self._write(_ANSWERS.get(verb, b"500 what?\r\n"))

    def _tell(self, verb: bytes, argument: bytes) -> bytes:
        accepted = self._accepted
        if verb == b"XDELAY":
            accepted.delay_seconds = float(argument)
            accepted.times = array("Q")
        if verb == b"XTIMES":
            return b"250 " + b" ".join(b"%d" % at for at in accepted.times) + b"\r\n"
        return b"250 %d\r\n" % len(accepted.times)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def serve(port: int, delay_seconds: float) -> None:
    """Listen until the process ends."""
    accepted = Accepted(delay_seconds)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(accepted), LOOPBACK, port, backlog=512)
    await server.serve_forever()


@click.command()
@click.option("--port", type=int, required=True, help="Where to listen on 127.0.0.1.")
@click.option("--delay-ms", type=float, default=0.0, show_default=True, help="How long it takes to accept a mail.")
def main(port: int, delay_ms: float) -> None:
    """Accept mails and forget them."""
    asyncio.run(serve(port, delay_ms / 1000))


if __name__ == "__main__":
    main()
