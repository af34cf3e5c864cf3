"""A step with the worlds around it, and the error when reality does something else."""

from typing import Any, NamedTuple

import psycopg

from tests.model.messages.rows import Step
from tests.model.messages.state import World

Connection = psycopg.Connection[tuple[Any, ...]]

LOCKED = "the row is locked"
NOTHING = "there is nothing to do"


class DivergenceError(AssertionError):
    """The real thing did something else than the model."""


def agree(what: str, model: object, real: object) -> None:
    if model != real:
        raise DivergenceError(f"{what}\n  in the model: {model}\n  in reality:   {real}")


class Moment(NamedTuple):
    """A step with the worlds around it; Hypothesis prints it in words."""

    step: Step
    before: World
    after: World

    def __repr__(self) -> str:
        return ": ".join(filter(None, (self.step.who, self.step.name, self.step.remark)))
