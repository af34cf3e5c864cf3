"""Every world that the steps of accounts.py lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.model.accounts import AccountStep, accounts_steps
from tests.model.accounts_state import AccountsConfig, AccountsWorld


class Broken(NamedTuple):
    """A property that does not hold, and how it came to that."""

    text: str
    way: list[str]

    def __str__(self) -> str:
        return "\n".join([f"NOT: {self.text}", *self.way])


class AccountsExploration(NamedTuple):
    """All worlds, each with those that it reaches without a person."""

    onward: dict[AccountsWorld, list[AccountsWorld]]
    taken: frozenset[str]
    broken: list[Broken]

    def without_way_to(self, goal: Callable[[AccountsWorld], bool]) -> list[AccountsWorld]:
        can = {world for world in self.onward if goal(world)}
        growing = True
        while growing:
            reached = {world for world, after in self.onward.items() if world not in can and not can.isdisjoint(after)}
            can |= reached
            growing = bool(reached)
        return [world for world in self.onward if world not in can]


Check = Callable[[AccountsWorld, AccountStep, AccountsWorld], bool]


def explore_accounts(config: AccountsConfig, checks: dict[str, Check]) -> AccountsExploration:
    """Visit every world; each broken property is told once, by one of the shortest ways.

    It ends early when all of them are broken.
    """
    first = config.initial()
    parents: dict[AccountsWorld, tuple[AccountsWorld, str]] = {}
    onward: dict[AccountsWorld, list[AccountsWorld]] = {first: []}
    taken: set[str] = set()
    broken: dict[str, Broken] = {}
    left = [first]
    for world in left:  # it grows
        if checks and len(broken) == len(checks):
            break
        for step, after in accounts_steps(world, config):
            taken.add(step.name)
            if after not in onward:
                onward[after] = []
                parents[after] = (world, str(step))
                left.append(after)
            if step.is_own:
                onward[world].append(after)
            for text, check in checks.items():
                if text not in broken and not check(world, step, after):
                    broken[text] = Broken(text, [*_way(parents, world), f"{step} -> {after}"])
    return AccountsExploration(onward, frozenset(taken), [*broken.values()])


def _way(parents: dict[AccountsWorld, tuple[AccountsWorld, str]], world: AccountsWorld) -> list[str]:
    way: list[str] = []
    while world in parents:
        world, step = parents[world]
        way.append(step)
    return way[::-1]
