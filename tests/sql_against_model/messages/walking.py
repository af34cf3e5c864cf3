"""Walks that Hypothesis draws, and paths that a test writes down."""

from collections.abc import Iterable

import psycopg
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.model.describe import describe, describe_step
from tests.model.messages.rows import FAULT
from tests.model.messages.state import Config
from tests.sql_against_model.messages.possible import moments
from tests.sql_against_model.messages.service import Service
from tests.sql_against_model.moment import DivergenceError, Moment

MOST_STEPS = 40
ORDINARY_STEPS_FOR_A_RARE_ONE = 3
CONFIGS = [Config(faults=2), Config(messages=2, faults=2), Config(max_retries=0, faults=1, orders=1)]


class Run:
    """The model and the real thing, side by side from their beginning on."""

    def __init__(self, service: Service, config: Config) -> None:
        self.service = service
        self.config = config
        self.world = config.initial()
        self.story = ["; ".join(describe(self.world))]
        service.begin(config)

    def possible(self) -> list[Moment]:
        heads = {jobs[0] for jobs in self.service.servers.listed() if jobs}
        return [*moments(self.world, self.config, heads, self.service.servers)]

    def take(self, chosen: Moment) -> None:
        self.story.append(describe_step(len(self.story), *chosen))
        try:
            self.service.take(chosen)
        except (DivergenceError, psycopg.OperationalError, psycopg.IntegrityError) as exc:
            raise DivergenceError("\n".join([*self.story, str(exc)])) from exc
        self.world = chosen.after


def by_kind(possible: list[Moment]) -> list[list[list[Moment]]]:
    """What is drawn from: a kind, a name, a variant. What has many variants is not to crowd out the rest."""
    ordinary: dict[str, list[Moment]] = {}
    rare: dict[str, dict[str, list[Moment]]] = {}
    for each in possible:
        step = each.step
        is_rare = step.kind == FAULT or each.before is each.after or step.remark == "Redis does not answer"
        names = rare.setdefault(step.who.split()[0], {}) if is_rare else ordinary
        names.setdefault(step.name, []).append(each)
    if not ordinary:
        return []
    rare_kinds = [[*names.values()] for names in rare.values()]
    return [[*ordinary.values()]] * max(1, ORDINARY_STEPS_FOR_A_RARE_ONE * len(rare_kinds)) + rare_kinds


def walk(service: Service, data: st.DataObject) -> None:
    run = Run(service, data.draw(st.sampled_from(CONFIGS)))
    for _ in range(MOST_STEPS):
        drawn_from = by_kind(run.possible())
        if not drawn_from:
            break
        run.take(data.draw(st.sampled_from(drawn_from).flatmap(st.sampled_from).flatmap(st.sampled_from)))


# Always the same walks; shrunk where they diverge.
ECONOMICAL = settings(max_examples=60, derandomize=True, deadline=None, report_multiple_bugs=False)


def walk_and_shrink(service: Service, walks: int) -> None:
    chosen = settings(ECONOMICAL, max_examples=walks, phases=[Phase.generate, Phase.shrink])
    chosen(given(data=st.data())(walk))(service=service)


walk_until_divergence = settings(ECONOMICAL, phases=[Phase.generate])(given(data=st.data())(walk))


def follow(service: Service, config: Config, path: Iterable[str]) -> None:
    run = Run(service, config)
    for text in path:
        possible = {repr(each): each for each in run.possible()}
        assert text in possible
        run.take(possible[text])
