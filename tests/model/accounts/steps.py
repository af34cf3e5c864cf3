"""Accounts that are not verified yet, as a set of named steps between frozen worlds.

    api       sign_up, resend, correct, verify: each one statement, which locks the account's row
    worker    claim, prepare, send, and how a claim ends: done, released, dead, refused, discard_claims
    relay     expire, one transaction: find, lock, lock_dead_letters, look_again, delete
    operator  retry (a dead letter)
    time      link_ends, link_long_ended, grows_old: whatever may be over may be over at any later moment

The life of a message is protocol.py's; here pending stands for published, a worker that dies has released its message,
attempts are not counted, and refusals by policy are none. What a link proves when several accounts name its address is
left to the API: any of them may be the one that is verified. Of the limits of a mailbox there are none; what waits for
one is pending.

The steps of API, worker and relay are in api.py, worker.py and expiry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.accounts.api import api_steps
from tests.model.accounts.expiry import expiry_steps
from tests.model.accounts.state import (
    DEAD,
    ENDED,
    GOOD,
    NO_LINK,
    NOBODY,
    PENDING,
    REFUSED,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
    Move,
)
from tests.model.accounts.worker import worker_steps
from tests.model.search import Found, search

Check = Callable[[AccountsWorld, AccountStep, AccountsWorld], bool]


def explore_accounts(config: AccountsConfig, checks: dict[str, Check]) -> Found[AccountsWorld]:
    """Visit every world that can be reached."""
    return search(config.initial(), lambda world: accounts_steps(world, config), checks)


def accounts_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    yield from api_steps(world, config)
    yield from worker_steps(world, config)
    yield from expiry_steps(world, config)
    yield from _time_steps(world)
    if world.orders:
        for number, mail in enumerate(world.mails):
            if mail.status in (DEAD, REFUSED) and number not in world.expiry.dead_letters:
                ordered = world._replace(orders=world.orders - 1)
                yield (
                    AccountStep("retry", number, is_own=False),
                    ordered.with_mail(number, mail._replace(status=PENDING)),
                )


def _time_steps(world: AccountsWorld) -> Iterator[Move]:
    for number, mail in enumerate(world.mails):
        if mail.link == GOOD:
            yield AccountStep("link_ends", number), world.with_mail(number, mail._replace(link=ENDED))
        elif mail.link == ENDED:
            long_ended = mail._replace(link=NO_LINK, link_address=NOBODY)
            yield AccountStep("link_long_ended", number), world.with_mail(number, long_ended)
    for name, account in enumerate(world.accounts):
        if account is not None and not account.is_old:
            yield AccountStep("grows_old", name), world.with_account(name, account._replace(is_old=True))
