"""A mail server whose answers a test sets, for those that no well-behaved server gives."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Self

from embedded.programs.ports import LOOPBACK

GREETING, CONTENT = "greeting", "content"
HANG_UP = "hang up"
"""Instead of an answer, or behind it: the connection is closed."""

PIPELINING = {"EHLO": "250-scripted\n250 PIPELINING"}
"""Answers of a server that takes several commands at once."""


@dataclass(eq=False)
class Session:
    """What the server knows of one connection."""

    server: "ScriptedMailServer"
    connection: socket.socket
    heard: list[str]
    place: int
    """How many were open when it was."""
    recipient: str = ""
    mails: int = 0
    """How many it has accepted."""


Answer = str | Callable[[Session], str]
"""The answer to a step, or what finds it out; that may also wait, or write to the connection by itself."""

_GOOD: dict[str, Answer] = {
    GREETING: "220 scripted",
    "EHLO": "250 scripted",
    "MAIL": "250 OK",
    "RCPT": "250 OK",
    "DATA": "354 go on",
    CONTENT: "250 OK",
    "RSET": "250 OK",
    "QUIT": "221 bye",
}


class ScriptedMailServer:
    """Answers each command by its first word; `said` keeps what it heard, a list for each connection."""

    def __init__(self, answers: Mapping[str, Answer], *, seconds_per_byte: float = 0) -> None:
        self.said: list[list[str]] = []
        self.contents: list[bytes] = []
        """What arrived whole, whether it was accepted or not."""
        self.accepted: list[str] = []
        """The recipients of the mails that were accepted, in their order."""
        self.sessions: set[Session] = set()
        """Those that are open."""
        self.most_sessions = 0
        self.is_stopping = threading.Event()
        self._answers = {**_GOOD, **answers}
        self._seconds_per_byte = seconds_per_byte
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.is_stopping.set()
        # Closing alone would not wake a thread that accepts or reads.
        for each in (self._socket, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                heard: list[str] = []
                self.said.append(heard)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                session = Session(self, connection, heard, place=len(self.sessions) + 1)
                self.sessions.add(session)
                self.most_sessions = max(self.most_sessions, session.place)
                thread = threading.Thread(target=self._serve, args=(session,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, session: Session) -> None:
        connection = session.connection
        try:
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
                self._converse(session, lines)
        finally:
            self.sessions.discard(session)

    def _converse(self, session: Session, lines: BinaryIO) -> None:
        if self._answer(session, GREETING) is None:
            return
        for line in lines:
            command = line.decode(errors="replace").strip()
            session.heard.append(command)
            word = command.split()[0].upper() if command else ""
            if word == "RCPT":
                session.recipient = command.partition("<")[2].partition(">")[0]
            answer = self._answer(session, word)
            if answer is None:
                return
            if word == "DATA" and answer.startswith("354"):
                if not self._read_content(lines):
                    return
                answer = self._answer(session, CONTENT)
                if answer is None:
                    return

    def _read_content(self, lines: BinaryIO) -> bool:
        content = b""
        for line in lines:
            if line == b".\r\n":
                self.contents.append(content)
                return True
            content += line
        return False

    def _answer(self, session: Session, step: str) -> str | None:
        """Answer, and return the answer; None when the connection is closed behind it."""
        found = self._answers.get(step, "500 what?")
        answer = found if isinstance(found, str) else found(session)
        text = answer.removesuffix(HANG_UP).strip()
        if step == CONTENT and text.startswith("2"):
            session.mails += 1
            self.accepted.append(session.recipient)
        if text:
            data = text.replace("\n", "\r\n").encode() + b"\r\n"
            if self._seconds_per_byte:
                for byte in data:
                    session.connection.sendall(bytes([byte]))
                    time.sleep(self._seconds_per_byte)
            else:
                session.connection.sendall(data)
        if answer.endswith(HANG_UP):
            session.connection.shutdown(socket.SHUT_RDWR)
            return None
        return answer
