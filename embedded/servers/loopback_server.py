"""What the servers have in common: a program, and a port on 127.0.0.1."""

import signal
from collections.abc import Callable
from functools import partial

from embedded.errors import EmbeddedError, ProgramFailedError
from embedded.programs.ports import free_port
from embedded.programs.program import Command, Program

_PORT_ATTEMPTS = 5


class LoopbackServer:
    """A program that listens on 127.0.0.1. Its port is chosen at the first start and kept from then on."""

    def __init__(self, name: str, port: int | None) -> None:
        """Prepare it. Nothing is started yet.

        Args:
            name: of the server in texts for people.
            port: None for a free one.

        """
        self.name = name
        self._port = port
        self._port_was_chosen = port is not None
        self._program: Program | None = None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def exit_code(self) -> int | None:
        """How the last run ended: negative for a signal, None while running or before the first start."""
        return None if self._program is None else self._program.exit_code

    @property
    def running(self) -> bool:
        """Whether the server is running."""
        return self._program is not None and self._program.running

    @property
    def pid(self) -> int:
        """The server's process number."""
        return self._started.pid

    @property
    def _started(self) -> Program:
        if self._program is None:
            raise EmbeddedError(f"{self.name} was never started")
        return self._program

    def _start_program(
        self,
        command: Callable[[], Command],
        is_ready: Callable[[Program], bool],
        *,
        ready_seconds: float,
        bind_error: str,
        stop_signal: signal.Signals,
    ) -> None:
        """Start the program and wait until it is ready; take another port if the first one is taken meanwhile.

        Args:
            command: returns the command for the current port.
            is_ready: whether the program answers.
            ready_seconds: how long to wait for that.
            bind_error: what the program's log says when the port is taken.
            stop_signal: what ends the program if it does not become ready.

        """
        for _ in range(_PORT_ATTEMPTS):
            program = self._program = Program(command())
            program.start()
            try:
                program.wait_ready(partial(is_ready, program), ready_seconds)
            except ProgramFailedError as failure:
                program.stop(with_signal=stop_signal)
                # Another program may take a port between its choice and the listen.
                if self._port_was_chosen or bind_error not in str(failure):
                    raise
                self._port = None
            else:
                self._port_was_chosen = True
                return
        raise EmbeddedError(f"no port could be bound in {_PORT_ATTEMPTS} attempts")
