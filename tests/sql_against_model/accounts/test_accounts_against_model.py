"""The statements about accounts do to real rows what the model of accounts says, in orders that Hypothesis draws."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from outbox_relay.loop.maintenance import expiry_statements
from tests.model.accounts.state import (
    CHECKED,
    FOUND,
    IDLE,
    LOCKED_DEAD_LETTERS,
    NOBODY,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
    Move,
)
from tests.model.accounts.steps import accounts_steps
from tests.settings.consumer import consumer_settings
from tests.sql_against_model.accounts.accounts_service import AccountsService
from tests.sql_against_model.moment import DivergenceError

MOST_STEPS = 40
WEIGHTS = {
    **dict.fromkeys(("prepare", "send", "discard_claims", "link_ends", "link_long_ended", "grows_old"), 4),
    **dict.fromkeys(("find", "lock", "lock_dead_letters", "look_again", "delete"), 6),
}
CONFIG = AccountsConfig(names=2, signups=3, requests=3, orders=2, joins=False)


@pytest.fixture
def service(database_url: str) -> Iterator[AccountsService]:
    with closing(AccountsService(database_url, consumer_settings(database_url))) as service:
        yield service


def possible(world: AccountsWorld) -> list[Move]:
    """What may come next, also what has to change nothing. What is one statement in reality is not interrupted."""
    moves = [*accounts_steps(world, CONFIG)]
    whole = {FOUND: "lock", CHECKED: "delete"}.get(world.expiry.phase)
    if whole is not None:
        return [move for move in moves if move[0].name == whole]
    names = {step.name for step, _ in moves}
    if world.expiry.phase == IDLE and "find" not in names:
        moves.append((AccountStep("find_nothing", NOBODY), world))
    if world.expiry.phase == LOCKED_DEAD_LETTERS and "look_again" not in names:
        moves.append((AccountStep("delete_nothing", NOBODY), world))
    return moves


def by_name(moves: list[Move]) -> list[list[Move]]:
    """A name is drawn before a variant, and more often where it leads on to what is rare."""
    names: dict[str, list[Move]] = {}
    for move in moves:
        names.setdefault(move[0].name, []).append(move)
    return [variants for name, variants in names.items() for _ in range(WEIGHTS.get(name, 1))]


def walk(service: AccountsService, data: st.DataObject) -> None:
    world = CONFIG.initial()
    service.begin()
    story: list[str] = []
    for _ in range(MOST_STEPS):
        moves = possible(world)
        if not moves:
            break
        step, after = data.draw(st.sampled_from(by_name(moves)).flatmap(st.sampled_from))
        story.append(str(step))
        try:
            service.take(step, world, after)
        except (DivergenceError, psycopg.Error) as exc:
            raise DivergenceError("\n".join([*story, str(exc)])) from exc
        world = after


ECONOMICAL = settings(max_examples=25, derandomize=True, deadline=None, report_multiple_bugs=False)


def walk_and_shrink(service: AccountsService, walks: int) -> None:
    chosen = settings(ECONOMICAL, max_examples=walks, phases=[Phase.generate, Phase.shrink])
    chosen(given(data=st.data())(walk))(service=service)


walk_until_divergence = settings(ECONOMICAL, phases=[Phase.generate])(given(data=st.data())(walk))

AWAY_WITH_IT = ("find 0", "lock 0", "lock_dead_letters 0")
PATH = (
    *("sign_up 0 (address 0)", "claim 0", "prepare 0", "send 0 (refused, to address 0)", "find_nothing -1"),
    *("link_ends 0", "link_long_ended 0", "grows_old 0", *AWAY_WITH_IT, "crash -1"),
    *("retry 0", "find_nothing -1", "claim 0", "release 0", "claim 0", "prepare 0", "send 0 (refused, to address 0)"),
    *("link_ends 0", "find_nothing -1", "link_long_ended 0"),
    *(*AWAY_WITH_IT, "look_again 0", "delete 0 (accounts (0,))", "sign_up 0 (address 1)"),
)
STEPS = {
    *("sign_up", "resend", "correct", "verify", "claim", "prepare", "send", "release", "discard_claims"),
    *("find", "find_nothing", "lock", "lock_dead_letters", "look_again", "delete", "crash", "retry"),
    *("link_ends", "link_long_ended", "grows_old"),
}


def follow(service: AccountsService) -> None:
    """An account whose recipient does not exist goes with its dead letter, and its name is free again."""
    world = CONFIG.initial()
    service.begin()
    for text in PATH:
        moves = {str(step): (step, after) for step, after in possible(world)}
        step, after = moves[text]
        service.take(step, world, after)
        world = after


@pytest.mark.parametrize("walks", [8, pytest.param(25, marks=pytest.mark.long)])
def test_real_statements_do_what_the_model_of_accounts_says(service: AccountsService, walks: int) -> None:
    walk_and_shrink(service, walks)
    follow(service)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) - {"delete_nothing"} == STEPS


def test_walks_find_a_missing_clause(service: AccountsService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accounts of an address, and so the account itself, are what it looks at."""
    monkeypatch.setattr(expiry_statements, "_ADDRESS_HAS_UNFINISHED", "false")

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        walk_until_divergence(service=service)

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
