"""Send requests all the time while containers are replaced, and count the answers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.compose_proof.engine import Engine

_PAUSE_SECONDS = 0.02


@dataclass
class Outcomes:
    """When each request began, and whether it was answered as it should be."""

    began: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)

    @property
    def share_failed(self) -> float:
        """Return the share of all requests that were not answered."""
        return len(self.failures) / len(self.began)

    @property
    def interruption_seconds(self) -> float:
        """Return the time from the first request that was not answered to the last."""
        return self.failures[-1][0] - self.failures[0][0] if self.failures else 0.0

    def __str__(self) -> str:
        kinds = sorted({kind for _, kind in self.failures})
        return (
            f"{len(self.failures)} of {len(self.began)} requests failed ({self.share_failed:.1%}), "
            f"over {self.interruption_seconds:.1f} s {kinds or ''}"
        )


@contextmanager
def requests_to(engine: Engine, *addresses: str) -> Iterator[Outcomes]:
    """Ask the addresses from inside the engine's network until the block ends.

    Each request takes a new connection. It goes on to the next address where one does not answer, as a proxy does.
    """
    outcomes = Outcomes()
    ended = threading.Event()
    asking = threading.Thread(target=_ask, args=(engine, addresses, outcomes, ended.is_set))
    asking.start()
    try:
        yield outcomes
    finally:
        ended.set()
        asking.join()


def _ask(engine: Engine, addresses: tuple[str, ...], outcomes: Outcomes, ended: Callable[[], bool]) -> None:
    with engine.network():
        while not ended():
            began = time.monotonic()
            outcomes.began.append(began)
            failure = None
            for address in addresses:
                failure = _failure(address)
                if failure is None:
                    break
            if failure is not None:
                outcomes.failures.append((began, failure))
            time.sleep(_PAUSE_SECONDS)


def _failure(address: str) -> str | None:
    try:
        response = httpx.get(address, timeout=10)
    except httpx.TransportError as exc:
        return type(exc).__name__
    return None if response.is_success else str(response.status_code)
