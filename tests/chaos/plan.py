"""What goes wrong in a run, and when: drawn from the seed alone, before anything is started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.chaos.commands import IDLE_LIMIT_SECONDS, RUN_LEASE_SECONDS

_GAP_SECONDS: Final = (1.0, 4.0)
_AWAY: Final = (0.0, 3.0)
_AT_ONCE: Final = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        component: what it happens to; of relays and workers there are several.
        seconds: between which limits it lasts.
        variants: which of its forms it may take. OutboxWorker and the relay are one process each: to them all
            forms are the same.

    """

    component: str
    seconds: tuple[float, float]
    variants: tuple[str, ...] = ("parent",)


_OF_WORKER: Final = ("parent", "child", "all")
_PAST_RUN_LEASE: Final = (RUN_LEASE_SECONDS * 1.2, RUN_LEASE_SECONDS * 1.6)
_PAST_IDLE_LIMIT: Final = (IDLE_LIMIT_SECONDS * 1.2, IDLE_LIMIT_SECONDS * 1.6)

KINDS: Final[Mapping[str, Kind]] = {
    "api-kill": Kind("api", _AT_ONCE, ("parent", "child")),
    "relay-kill": Kind("relay", _AT_ONCE),
    "relay-stop": Kind("relay", _PAST_IDLE_LIMIT),
    "relay-term": Kind("relay", _AT_ONCE),
    "worker-kill": Kind("worker", _AT_ONCE, _OF_WORKER),
    "worker-stop": Kind("worker", _PAST_RUN_LEASE, _OF_WORKER),
    "worker-term": Kind("worker", _AT_ONCE),
    "postgres-backend-kill": Kind("postgres", _AT_ONCE),
    "postgres-stop": Kind("postgres", (0.5, 2.5)),
    "postgres-immediate": Kind("postgres", _AWAY),
    "postgres-kill": Kind("postgres", _AWAY),
    "redis-kill": Kind("redis", _AWAY),
    "redis-wipe": Kind("redis", _AWAY),
    "redis-stop": Kind("redis", (1.0, 6.0)),
    "redis-flush": Kind("redis", _AT_ONCE),
    "redis-old": Kind("redis", (1.0, 5.0)),
    "mail-kill": Kind("mail", (1.0, 5.0)),
    "mail-421": Kind("mail", (1.0, 4.0)),
    "mail-451": Kind("mail", (1.0, 4.0)),
    "mail-hang-before-dot": Kind("mail", (2.0, 5.0)),
    "mail-hang-after-dot": Kind("mail", (2.0, 5.0)),
    "mail-slow": Kind("mail", (2.0, 5.0)),
    "mail-drop-after-accept": Kind("mail", (0.5, 3.0)),
}
"""Every kind of fault by its name, which begins with its component."""

NO_FAULTS: Final = "none"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    Attributes:
        at: when it begins, in seconds from the beginning of the run.
        target: what it happens to: `postgres`, `relay-2` …
        seconds: how long it lasts.

    """

    at: float
    kind: str
    target: str
    seconds: float
    variant: str


def choose_kinds(text: str) -> tuple[str, ...]:
    """Read a list of kinds with commas; a component's name stands for all of its kinds. Raises ValueError."""
    chosen: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = [name for name, kind in KINDS.items() if part in {name, kind.component}]
        if not found and part != NO_FAULTS:
            known = sorted({kind.component for kind in KINDS.values()} | {NO_FAULTS, *KINDS})
            raise ValueError(f"unknown fault {part!r}; known are {', '.join(known)}")
        chosen.extend(found)
    return tuple(dict.fromkeys(chosen))


def draw_plan(seed: int, duration: float, kinds: Sequence[str], counts: Mapping[str, int]) -> list[Fault]:
    """Draw the faults of a run, one to four seconds apart; those that last longer than that overlap.

    Args:
        seed: the same one draws the same plan.
        duration: no fault begins later than this.
        kinds: what may happen. Each kind comes once before any comes again.
        counts: how many processes there are of the components that have several.

    """
    random = Random(seed)  # noqa: S311 - it has to be the same again, not secret
    if not kinds:
        return []
    plan = []
    at = 0.0
    for name in _shuffled_for_ever(random, kinds):
        at += random.uniform(*_GAP_SECONDS)
        if at >= duration:
            break
        kind = KINDS[name]
        count = counts.get(kind.component)
        target = kind.component if count is None else f"{kind.component}-{random.randint(1, count)}"
        plan.append(Fault(at, name, target, random.uniform(*kind.seconds), random.choice(kind.variants)))
    return plan


def _shuffled_for_ever(random: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from random.sample(kinds, len(kinds))
