"""Signup, resend, correction, verification, expiry and claim, in every order: no mail that is owed is lost.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.accounts.state import (
    DEAD,
    DONE,
    ENDED,
    GOOD,
    LIVE,
    PENDING,
    READY,
    RUNNING,
    AccountGuard,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
)
from tests.model.accounts.steps import Check, explore_accounts
from tests.model.search import Found


def _keeps_accounts(_before: AccountsWorld, _step: AccountStep, after: AccountsWorld) -> bool:
    return all(_has_its_account(after, number) for number, mail in enumerate(after.mails) if mail.status in LIVE)


def _has_its_account(world: AccountsWorld, number: int) -> bool:
    mail = world.mails[number]
    account = world.accounts[mail.name]
    return account is not None and account.life == mail.life


def _sends_as_asked(before: AccountsWorld, step: AccountStep, _after: AccountsWorld) -> bool:
    return step.name != "send" or before.worker.address == before.mails[step.number].asked_for


def _owes_nothing(_before: AccountsWorld, _step: AccountStep, after: AccountsWorld) -> bool:
    """Half a statement is none: what it owes is owed when it is whole."""
    return after.halfway is not None or all(
        account is None
        or account.is_verified
        or after.is_taken(account.address)
        or any(
            (mail.name, mail.life, mail.asked_for) == (name, account.life, account.address)
            and (mail.status == DONE or (mail.status in LIVE and number >= account.first_mail))
            for number, mail in enumerate(after.mails)
        )
        for name, account in enumerate(after.accounts)
    )


def _spares_owners(before: AccountsWorld, step: AccountStep, after: AccountsWorld) -> bool:
    is_made = step.name == "prepare" and after.worker.phase == READY
    return not is_made or not before.is_taken(after.worker.address)


def _verifies_what_was_mailed(before: AccountsWorld, step: AccountStep, _after: AccountsWorld) -> bool:
    if step.name != "verify":
        return True
    account = before.accounts[step.number]
    mail = before.mails[int(step.remark.removeprefix("link "))]
    return account is not None and account.address == mail.link_address and _has_an_account(before, mail.name)


def _has_an_account(world: AccountsWorld, name: int) -> bool:
    return world.accounts[name] is not None


def _has_one_owner(_before: AccountsWorld, _step: AccountStep, after: AccountsWorld) -> bool:
    verified = [account.address for account in after.accounts if account is not None and account.is_verified]
    return len(verified) == len(set(verified))


def _waits_its_days(before: AccountsWorld, step: AccountStep, after: AccountsWorld) -> bool:
    if step.name != "delete":
        return True
    gone = [(name, old) for name, old in enumerate(before.accounts) if old is not None and after.accounts[name] is None]
    return all(
        account.is_old
        and not account.is_verified
        and not any(mail.name == name and mail.link in (GOOD, ENDED) for mail in before.mails)
        for name, account in gone
    )


def _covers_the_address(before: AccountsWorld, step: AccountStep, after: AccountsWorld) -> bool:
    """At the moment of the snapshot that decides. What is asked for after it was not waited for."""
    if step.name != "look_again":
        return True
    gone = [before.accounts[name] for name in after.expiry.names]
    return not any(
        account is not None
        and other is not None
        and not other.is_verified
        and other.address == account.address
        and (mail.status in (PENDING, RUNNING) or mail.link == GOOD)
        for account in gone
        for mail in before.mails
        for other in [before.accounts[mail.name]]
    )


def _is_ahead(_before: AccountsWorld, step: AccountStep, after: AccountsWorld) -> bool:
    account = after.accounts[step.number] if step.name == "resend" else None
    return account is None or any(
        (mail.name, mail.life, mail.asked_for, mail.status) == (step.number, account.life, account.address, PENDING)
        and number >= account.first_mail
        for number, mail in enumerate(after.mails)
    )


KEPT: Final = "no message that is pending, running or dead is without the account that it was appended for"
ASKED: Final = "a mail goes to the address that it was asked for, and to no other"
OWED: Final = "who waits for a mail to an address that nobody has verified has a message ahead, or a mail that was sent"
SPARED: Final = "no mail is made for an address that an account has verified"
MAILED: Final = "an account is verified by a link that was mailed to its address, and whose account is there"
ONE_OWNER: Final = "an address has one verified account at the most"
DAYS: Final = (
    "only an unverified account is deleted, UNVERIFIED_DAYS after creation, correction and the end of its links"
)
COVERED: Final = "no account is deleted while a link of its address is good, or a mail will bring one"
AHEAD: Final = "after a resend a mail to the account's address is ahead"
PROPERTIES: Final[dict[str, Check]] = {
    KEPT: _keeps_accounts,
    ASKED: _sends_as_asked,
    OWED: _owes_nothing,
    SPARED: _spares_owners,
    MAILED: _verifies_what_was_mailed,
    ONE_OWNER: _has_one_owner,
    DAYS: _waits_its_days,
    COVERED: _covers_the_address,
    AHEAD: _is_ahead,
}

SIZES: Final = {
    "an-account": AccountsConfig(),
    "an-operator": AccountsConfig(requests=0, orders=2),
    "a-name-that-is-taken-again": AccountsConfig(addresses=1, signups=2, requests=0, orders=1),
    "two-accounts-of-one-address": AccountsConfig(names=2, addresses=1, signups=2, requests=0),
}


LARGEST: Final = "two-accounts-of-one-address"


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long if name == LARGEST else ()) for name in SIZES]
)
def explored(request: pytest.FixtureRequest) -> Found[AccountsWorld]:
    exploration = explore_accounts(SIZES[request.param], PROPERTIES)
    print(f"\n{request.param}: {len(exploration.onward):,} worlds")  # noqa: T201 - for pytest -s
    return exploration


def test_every_property_holds_in_every_order(explored: Found[AccountsWorld]) -> None:
    assert not explored.broken, "\n".join(map(str, explored.broken))


def test_every_account_can_end_without_a_person_unless_a_dead_letter_needs_one(explored: Found[AccountsWorld]) -> None:
    def is_over(world: AccountsWorld) -> bool:
        return all(
            account is None or account.is_verified or any(mail.status == DEAD for mail in world.mails)
            for account in world.accounts
        )

    stuck = explored.without_way_to(is_over)

    assert not stuck, stuck[0]


BROKEN: Final = [
    (AccountGuard.EXPIRE_UNVERIFIED, DAYS, AccountsConfig(requests=0)),
    (AccountGuard.EXPIRE_AGE, DAYS, AccountsConfig(requests=0)),
    (AccountGuard.EXPIRE_LINKS, DAYS, AccountsConfig(requests=0)),
    (AccountGuard.EXPIRE_WAITING, KEPT, AccountsConfig(requests=0)),
    (AccountGuard.EXPIRE_DEAD, KEPT, AccountsConfig(requests=0)),
    (AccountGuard.EXPIRE_ADDRESS, COVERED, AccountsConfig(names=2, addresses=1, signups=2, requests=0)),
    (AccountGuard.EXPIRE_LOCKS, KEPT, AccountsConfig(requests=1)),
    (AccountGuard.EXPIRE_LOCKS, DAYS, AccountsConfig(requests=1)),
    (AccountGuard.EXPIRE_LOCKS_DEAD_LETTERS, KEPT, AccountsConfig(requests=0, orders=1)),
    (AccountGuard.EXPIRE_LOOKS_AGAIN, KEPT, AccountsConfig(requests=1)),
    (AccountGuard.EXPIRE_DISCARDS, KEPT, AccountsConfig(requests=0)),
    (AccountGuard.RESEND_JOINS_PRESENT, AHEAD, AccountsConfig(requests=2)),
    (AccountGuard.APPEND_LOCKS, KEPT, AccountsConfig(requests=1)),
    (AccountGuard.CORRECT_AT_ONCE, ASKED, AccountsConfig(requests=1)),
    (AccountGuard.CORRECT_FIRST_MAIL, ASKED, AccountsConfig(requests=1)),
    (AccountGuard.PREPARE_FIRST_MAIL, ASKED, AccountsConfig(requests=1)),
    (AccountGuard.PREPARE_OWN_MAIL, OWED, AccountsConfig(requests=1)),
    (AccountGuard.PREPARE_VERIFIED, SPARED, AccountsConfig(requests=1)),
    (AccountGuard.VERIFY_ADDRESS, MAILED, AccountsConfig(requests=1)),
    (AccountGuard.VERIFY_FIRST, ONE_OWNER, AccountsConfig(names=2, signups=2, requests=0)),
]


@pytest.mark.parametrize(("guard", "broken", "config"), BROKEN, ids=[guard.name for guard, _, _ in BROKEN])
def test_without_the_guard_a_property_breaks(guard: AccountGuard, broken: str, config: AccountsConfig) -> None:
    explored = explore_accounts(config._replace(without=frozenset({guard})), {broken: PROPERTIES[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    assert set(AccountGuard) == {guard for guard, _, _ in BROKEN}
