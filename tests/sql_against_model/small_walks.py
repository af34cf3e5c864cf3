"""Walks that Hypothesis draws through one of the small models, and paths that a test writes down."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import psycopg
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.sql_against_model.moment import DivergenceError

MOST_STEPS = 30

Move = tuple[Any, Any]


class RealService(Protocol):
    """Takes a model's steps with the real statements, and compares what can be seen with the model's world."""

    def begin(self, config: Any) -> None: ...

    def take(self, step: Any, before: Any, after: Any) -> None: ...


class SmallRun:
    """A small model and the real thing, side by side from their beginning on."""

    def __init__(self, service: RealService, config: Any, moves: Callable[[Any, Any], Iterable[Move]]) -> None:
        self.service = service
        self.config = config
        self.moves = moves
        self.world = config.initial()
        self.story: list[str] = []
        service.begin(config)

    def possible(self) -> list[Move]:
        return [*self.moves(self.world, self.config)]

    def take(self, step: Any, after: Any) -> None:
        self.story.append(str(step))
        try:
            self.service.take(step, self.world, after)
        except (DivergenceError, psycopg.Error) as exc:
            raise DivergenceError("\n".join([*self.story, str(exc)])) from exc
        self.world = after

    def follow(self, path: Iterable[str]) -> None:
        for text in path:
            possible = {str(step): (step, after) for step, after in self.possible()}
            assert text in possible, f"{text!r} cannot happen after {self.story}; what can: {sorted(possible)}"
            self.take(*possible[text])


def walks(
    configs: Iterable[Any], moves: Callable[[Any, Any], Iterable[Move]], *, examples: int, shrinks: bool = True
) -> Callable[..., None]:
    """Return a function that takes the real thing, `service`, on walks: always the same ones."""
    known = [*configs]

    def walk(service: RealService, data: st.DataObject) -> None:
        run = SmallRun(service, data.draw(st.sampled_from(known)), moves)
        for _ in range(MOST_STEPS):
            names: dict[str, list[Move]] = {}
            for step, after in run.possible():
                names.setdefault(step.name, []).append((step, after))
            if not names:
                break
            # A name is drawn before a variant: what has many variants is not to crowd out the rest.
            run.take(*data.draw(st.sampled_from([*names.values()]).flatmap(st.sampled_from)))

    phases = [Phase.generate, Phase.shrink] if shrinks else [Phase.generate]
    economical = settings(
        max_examples=examples, derandomize=True, deadline=None, report_multiple_bugs=False, phases=phases
    )
    return economical(given(data=st.data())(walk))
