"""A mail server that says what a test tells it to: for answers that no well-behaved server gives."""

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from typing import BinaryIO, Self

from embedded.ports import LOOPBACK

GREETING, CONTENT = "greeting", "content"
HANG_UP = "hang up"
"""Instead of an answer, or behind it: the connection is closed."""

PIPELINING = {"EHLO": "250-scripted\n250 PIPELINING"}
"""Answers of a server that takes several commands at once."""

_GOOD = {
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

    def __init__(self, answers: Mapping[str, str], *, seconds_per_byte: float = 0) -> None:
        self.said: list[list[str]] = []
        self.contents: list[bytes] = []
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
                thread = threading.Thread(target=self._serve, args=(connection, heard), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, heard: list[str]) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            if not self._answer(connection, GREETING):
                return
            for line in lines:
                command = line.decode(errors="replace").strip()
                heard.append(command)
                word = command.split()[0].upper() if command else ""
                if not self._answer(connection, word):
                    return
                if word == "DATA" and self._answers[word].startswith("354"):
                    if not self._read_content(lines):
                        return
                    if not self._answer(connection, CONTENT):
                        return

    def _read_content(self, lines: BinaryIO) -> bool:
        content = b""
        for line in lines:
            if line == b".\r\n":
                self.contents.append(content)
                return True
            content += line
        return False

    def _answer(self, connection: socket.socket, step: str) -> bool:
        """Answer; False when the connection is to be closed."""
        answer = self._answers.get(step, "500 what?")
        text = answer.removesuffix(HANG_UP).strip()
        if text:
            data = text.replace("\n", "\r\n").encode() + b"\r\n"
            if self._seconds_per_byte:
                for byte in data:
                    connection.sendall(bytes([byte]))
                    time.sleep(self._seconds_per_byte)
            else:
                connection.sendall(data)
        if answer.endswith(HANG_UP):
            connection.shutdown(socket.SHUT_RDWR)
            return False
        return True
