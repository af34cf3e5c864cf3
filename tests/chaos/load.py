"""Sign users up over HTTP, and try again later without a clear answer."""

import heapq
import threading
import time
from dataclasses import dataclass, field
from random import Random
from typing import Final

import httpx

from tests.chaos.checking.evidence import Signup

_THREADS: Final = 24
_TIMEOUT_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 8.0
_LONGEST_WAIT_SECONDS: Final = 0.2
FIRST_REPETITION: Final = "200 at the first try"
_CREATED, _REPEATED = 201, 200


@dataclass(order=True, slots=True)
class _Turn:
    at: float
    number: int
    signup: Signup = field(compare=False)


class Load:
    """Several threads that sign users up at a rate; a user who was refused tries again."""

    def __init__(self, base_url: str, *, seed: int, rate: float) -> None:
        self.signups: list[Signup] = []
        self._base_url = base_url
        self._seed = seed
        self._rate = rate
        self._random = Random(seed)  # noqa: S311 - it has to be the same again, not secret
        self._turns: list[_Turn] = []
        self._changed = threading.Condition()
        self._next_new_at = 0.0
        self._takes_new = True
        self._is_abandoned = False
        self._threads = [threading.Thread(target=self._run, name=f"client-{n}", daemon=True) for n in range(_THREADS)]

    def start(self) -> None:
        """Begin."""
        self._next_new_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Start no more signups; those without an answer are repeated."""
        with self._changed:
            self._takes_new = False
            self._changed.notify_all()

    def is_done(self) -> bool:
        """Return whether no user waits for an answer any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def abandon(self) -> None:
        """End it; users without an answer get none."""
        with self._changed:
            self._takes_new = False
            self._is_abandoned = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._base_url, timeout=_TIMEOUT_SECONDS) as client:
            while (signup := self._take()) is not None:
                answer = _ask(client, signup)
                with self._changed:
                    self._note(signup, answer)
                    self._changed.notify_all()

    def _take(self) -> Signup | None:
        """Return the user whose turn it is; None when none is left."""
        with self._changed:
            while not self._is_abandoned:
                now = time.monotonic()
                if self._turns and self._turns[0].at <= now:
                    return heapq.heappop(self._turns).signup
                if self._takes_new and self._next_new_at <= now:
                    return self._new()
                if not self._takes_new and all(signup.acknowledged_by is not None for signup in self.signups):
                    return None
                self._changed.wait(self._seconds_to_wait(now))
            return None

    def _new(self) -> Signup:
        self._next_new_at += self._random.expovariate(self._rate)
        name = f"chaos_{self._seed}_{len(self.signups) + 1}"
        signup = Signup(name, f"{name}@example.com")
        self.signups.append(signup)
        return signup

    def _seconds_to_wait(self, now: float) -> float:
        moments = [turn.at for turn in self._turns[:1]] + ([self._next_new_at] if self._takes_new else [])
        return max(0.0, min([*(moment - now for moment in moments), _LONGEST_WAIT_SECONDS]))

    def _note(self, signup: Signup, answer: str) -> None:
        repeated = bool(signup.answers)
        is_own = answer == str(_REPEATED)
        text = answer if repeated or not is_own else FIRST_REPETITION
        signup.answers[text] = signup.answers.get(text, 0) + 1
        if answer == str(_CREATED):
            signup.acknowledged_by = _CREATED
        elif is_own and repeated:
            signup.acknowledged_by = _REPEATED
        else:
            # Longer and longer: people who all come again at once keep a service down that was overrun once.
            tries = min(10, sum(signup.answers.values()))
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (tries - 1))
            at = time.monotonic() + pause * self._random.uniform(0.5, 1.5)
            heapq.heappush(self._turns, _Turn(at, id(signup), signup))


def _ask(client: httpx.Client, signup: Signup) -> str:
    body = {
        "username": signup.username,
        "full_name": f"Name of {signup.username}",
        "email": signup.email,
        "password": "correct horse",
    }
    try:
        response = client.post("/v1/users", json=body)
    except httpx.TransportError as exc:
        return type(exc).__name__
    return str(response.status_code)
