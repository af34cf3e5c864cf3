"""Every world that the steps of a small model lead to, all of them kept in memory. explore.py is for the large one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar


class AnyStep(Protocol):
    """What happened; its text says it to a person."""

    @property
    def is_own(self) -> bool:
        """Return whether it happens without a fault and without a person."""


WorldT = TypeVar("WorldT", bound=Hashable)
StepT = TypeVar("StepT", bound=AnyStep)


class Broken(NamedTuple):
    """A property that does not hold, and how it came to that."""

    text: str
    way: list[str]

    def __str__(self) -> str:
        return "\n".join([f"NOT: {self.text}", *self.way])


class Found(NamedTuple, Generic[WorldT]):
    """All worlds, each with those that it reaches by steps of its own, and how each was reached first."""

    onward: dict[WorldT, list[WorldT]]
    broken: list[Broken]
    parents: Mapping[WorldT, tuple[WorldT, str]]

    def way_to(self, world: WorldT) -> list[str]:
        """One of the shortest ways to a world: the steps, and the world at the end."""
        return [*_way(self.parents, world), f"-> {world}"]

    def without_way_to(self, goal: Callable[[WorldT], bool]) -> list[WorldT]:
        can = {world for world in self.onward if goal(world)}
        growing = True
        while growing:
            reached = {world for world, after in self.onward.items() if world not in can and not can.isdisjoint(after)}
            can |= reached
            growing = bool(reached)
        return [world for world in self.onward if world not in can]


def search(
    first: WorldT,
    steps: Callable[[WorldT], Iterable[tuple[StepT, WorldT]]],
    checks: Mapping[str, Callable[[WorldT, StepT, WorldT], bool]],
) -> Found[WorldT]:
    """Visit every world that can be reached; each broken property is named once, by one of the shortest ways.

    It ends early when all of them are broken.
    """
    parents: dict[WorldT, tuple[WorldT, str]] = {}
    onward: dict[WorldT, list[WorldT]] = {first: []}
    broken: dict[str, Broken] = {}
    left = [first]
    for world in left:  # it grows
        if checks and len(broken) == len(checks):
            break
        for step, after in steps(world):
            if after not in onward:
                onward[after] = []
                parents[after] = (world, str(step))
                left.append(after)
            if step.is_own:
                onward[world].append(after)
            for text, check in checks.items():
                if text not in broken and not check(world, step, after):
                    broken[text] = Broken(text, [*_way(parents, world), f"{step} -> {after}"])
    return Found(onward, [*broken.values()], parents)


def _way(parents: Mapping[WorldT, tuple[WorldT, str]], world: WorldT) -> list[str]:
    way: list[str] = []
    while world in parents:
        world, step = parents[world]
        way.append(step)
    return way[::-1]
