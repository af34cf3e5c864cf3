"""Asks for the permission to begin, for messages of destinations that are limited, and notes which are slow."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

import psycopg

from consumer.model.message import ClaimedMessage
from consumer.model.outcomes import Released
from consumer.stages.database import Database
from shared.outbox.claiming.claims import Claim
from shared.outbox.destinations import breaker, limits
from shared.outbox.destinations.breaker import SLOW_MARK_SECONDS
from shared.outbox.destinations.control import TOKEN_SECONDS
from shared.outbox.destinations.limits import Admission

SPREAD_SECONDS: Final = 5.0
"""A message that may not begin is due again at a random moment of this time, so that nothing spins."""

_LOCKED_SECONDS: Final = 0.2
"""How long to try while another session has locked the destination's row, and then not to try."""

_TRY_SECONDS: Final = 0.01
_LONGEST_MEMORY_SECONDS: Final = 1.0
"""How long it is remembered that a limit is reached. It may have been changed meanwhile."""


class Limiter:
    """Takes tokens and places for the senders of one process, for all of a destination that wait at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connecting = threading.Lock()
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        self._guard = threading.Lock()
        self._marked_until: dict[str, float] = {}

    def refusal(self, message: ClaimedMessage) -> Released | None:
        """Return None if the message may begin now, else its outcome. Call it directly before the work begins."""
        state = message.destination
        if not state.is_limited:
            return None
        with self._guard:
            line = self._lines[state.name]
        request = _Request(message.claim)
        line.add(request)
        with line.turn:
            # Whoever had the turn before has asked for this message too, if it was waiting by then.
            if waiting := line.take_waiting():
                self._ask(state.name, line, waiting)
        if monotonic() < request.usable_until:
            return None
        return Released(f"the limit of {state.name} is reached", spread_seconds=SPREAD_SECONDS)

    def mark_slow(self, name: str) -> None:
        """Note for the relays that a destination is slow, at most every ten seconds."""
        with self._guard:
            if monotonic() < self._marked_until.get(name, 0.0):
                return
            self._marked_until = {each: until for each, until in self._marked_until.items() if monotonic() < until}
            self._marked_until[name] = monotonic() + SLOW_MARK_SECONDS
        try:
            with self._connecting, self._database.transaction(lock_seconds=_LOCKED_SECONDS) as connection:
                breaker.mark_slow(connection, name)
        except psycopg.Error:
            return

    def close(self) -> None:
        """Close the connection. The next use opens another."""
        with self._connecting:
            self._database.close()

    def _ask(self, name: str, line: "_Line", requests: "Sequence[_Request]") -> None:
        if monotonic() < line.empty_until:
            return
        begun_at, admission = self._admission(name, [each.claim for each in requests])
        if admission is None:
            line.empty_until = monotonic() + _LOCKED_SECONDS
            return
        for each in requests:
            if each.claim.id in admission.message_ids:
                each.usable_until = begun_at + TOKEN_SECONDS
        if len(admission.message_ids) < len(requests):
            line.empty_until = monotonic() + min(_LONGEST_MEMORY_SECONDS, admission.seconds_to_next)

    def _admission(self, name: str, claims: Sequence[Claim]) -> tuple[float, Admission | None]:
        """Return the admission, and when (monotonic) its statement began; None if the row was locked all the time."""
        give_up_at = monotonic() + _LOCKED_SECONDS
        while True:
            begun_at = monotonic()
            try:
                with self._connecting, self._database.transaction() as connection:
                    admission = limits.admit(connection, name, claims)
            except psycopg.Error:
                return begun_at, None
            if admission is not None or monotonic() >= give_up_at:
                return begun_at, admission
            sleep(_TRY_SECONDS)


class _Request:
    """A message that waits for a permission.

    Attributes:
        claim: its claim.
        usable_until: the moment (monotonic) until which it may begin.

    """

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.usable_until = 0.0


class _Line:
    """The messages of one destination that wait for a permission.

    Attributes:
        turn: is held by the thread that asks for all of them.
        empty_until: the moment (monotonic) until which nobody asks.

    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.empty_until = 0.0
        self._guard = threading.Lock()
        self._waiting: list[_Request] = []

    def add(self, request: _Request) -> None:
        with self._guard:
            self._waiting.append(request)

    def take_waiting(self) -> list[_Request]:
        with self._guard:
            waiting, self._waiting = self._waiting, []
            return waiting
