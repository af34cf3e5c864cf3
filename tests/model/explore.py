"""Breadth-first exploration of every reachable world, and counterexamples that a person can follow."""

from __future__ import annotations

import gc
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

from tests.model.describe import describe, describe_step
from tests.model.messages.properties import SAFETY, Change, Passage, Property
from tests.model.messages.protocol import steps
from tests.model.messages.rows import PROTOCOL, TIME, Move, Step
from tests.model.messages.state import Config, World, canonical


class Violation(NamedTuple):
    """A step that breaks a property: from which world (its number), and to which."""

    before: int
    step: Step
    after: World


@dataclass
class Exploration:
    """The worlds that can be reached, in the order of their distance from the first.

    parents: for each world the number of the one that it was first reached from.
    onward: for each world those that it reaches without a fault and without an operator.
    taken: how often each step was possible, by name.
    """

    config: Config
    worlds: list[World] = field(default_factory=list)
    parents: array[int] = field(default_factory=lambda: array("l"))
    onward: list[array[int]] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    violations: dict[Property, Violation] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return len(self.onward) == len(self.worlds)

    def __str__(self) -> str:
        bounds = self.config._asdict()
        del bounds["without"]
        shown = ", ".join(f"{name} {bound}" for name, bound in bounds.items())
        return f"{len(self.worlds):,} worlds, {self.taken.total():,} steps, {self.seconds:.1f} s ({shown})"

    def without_way_to(self, goal: Callable[[World], bool]) -> list[int]:
        """The worlds from which no path leads to a goal, unless with a further fault or an operator.

        Reachability backwards, from the goals. Worlds found late are near to the end: a few sweeps are enough.
        """
        can = bytearray(goal(world) for world in self.worlds)
        growing = True
        while growing:
            growing = False
            for number in range(len(can) - 1, -1, -1):
                if not can[number] and any(can[after] for after in self.onward[number]):
                    can[number] = growing = True
        return [number for number, reaches in enumerate(can) if not reaches]

    def trace(self, number: int) -> str:
        """How a world is reached."""
        return self._in_words(self._way_to(number))

    def counterexample(self, broken: Property) -> str:
        """How a property is broken: the way to the world before, and the step."""
        before, step, after = self.violations[broken]
        way = self._way_to(before)
        # The step is known as one of the canonical world, whose twins may have changed places.
        way.append(self._move(way[-1][1], canonical(after), step.name))
        return f"NOT: {broken.text}\n{self._in_words(way)}"

    def _way_to(self, number: int) -> list[Move]:
        """The steps from the first world, with processes that keep their own numbers on the way."""
        numbers = []
        while number > 0:
            numbers.append(number)
            number = self.parents[number]
        way = [(Step("the signup has committed", "api"), self.config.initial())]
        for following in reversed(numbers):
            way.append(self._move(way[-1][1], self.worlds[following]))
        return way

    def _move(self, world: World, target: World, name: str = "") -> Move:
        moves = steps(world, self.config)
        return next(move for move in moves if name in ("", move[0].name) and canonical(move[1]) == target)

    def _in_words(self, way: list[Move]) -> str:
        lines = ["    " + "; ".join(describe(way[0][1]))]
        for (_, before), (step, after) in pairwise(way):
            lines.append(describe_step(len(lines), step, before, after))
        return "\n".join(lines)


def explore(
    config: Config, properties: Iterable[Property] = SAFETY, *, stop_at: Property | None = None, most: int | None = None
) -> Exploration:
    """Visit every world within the config's bounds; end early where `stop_at` is broken, or after `most` worlds."""
    started = perf_counter()
    gc.disable()  # millions of tuples, no cycles: looking for some takes a tenth of the time
    try:
        exploration = _explore(config, tuple(properties), stop_at, most)
    finally:
        gc.enable()
    exploration.seconds = perf_counter() - started
    return exploration


def _explore(
    config: Config, properties: tuple[Property, ...], stop_at: Property | None, most: int | None
) -> Exploration:
    exploration = Exploration(config, worlds=[canonical(config.initial())], parents=array("l", [-1]))
    worlds, onward, violations = exploration.worlds, exploration.onward, exploration.violations
    numbers = {worlds[0]: 0}
    check = _checker(config, properties)
    while not exploration.complete and stop_at not in violations and (most is None or len(worlds) < most):
        at = len(onward)
        before = worlds[at]
        reached = array("l")
        for step, after in steps(before, config, twins=False):
            exploration.taken[step.name] += 1
            world = canonical(after)
            number = numbers.setdefault(world, len(worlds))
            if new := number == len(worlds):
                worlds.append(world)
                exploration.parents.append(at)
            if step.kind in (PROTOCOL, TIME):
                reached.append(number)
            for broken in check(before, step, after, new):
                violations.setdefault(broken, Violation(at, step, after))
        onward.append(reached)
    return exploration


def _checker(
    config: Config, properties: tuple[Property, ...]
) -> Callable[[World, Step, World, bool], Iterator[Property]]:
    """A function that names the properties broken by a step; `new` where its world was not known before."""
    of_worlds = [(each, each.world) for each in properties if each.world]
    of_changes = [(each, each.change) for each in properties if each.change]
    of_passages = [(each, each.passage) for each in properties if each.passage]

    def check(before: World, step: Step, after: World, new: bool) -> Iterator[Property]:  # noqa: FBT001 - called once
        if after.rows is not before.rows:
            for old_row, new_row in zip(before.rows, after.rows, strict=True):
                if old_row is not new_row:
                    change = Change(old_row, new_row, step, before, config)
                    yield from [each for each, holds in of_changes if not holds(change)]
        for each, holds_for in of_passages:
            if step.name in each.steps and not holds_for(Passage(before, step, after, config)):
                yield each
        if new:
            yield from [each for each, holds_in in of_worlds if not holds_in(after, config)]

    return check


def walk(config: Config, *path: str) -> World:
    """The world after the given steps, each written as "who: name" or "who: name: remark"."""
    world = config.initial()
    for text in path:
        possible = {
            ": ".join(filter(None, (step.who, step.name, step.remark))): after for step, after in steps(world, config)
        }
        if text not in possible:
            raise LookupError(f"{text!r} cannot happen now; what can: {sorted(possible)}")
        world = possible[text]
    return world
