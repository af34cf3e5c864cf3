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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.model.accounts.state import (
    CHECKED,
    CLAIMED,
    DEAD,
    DISCARDED,
    DONE,
    ENDED,
    FOUND,
    GOOD,
    IDLE,
    LIVE,
    LOCKED,
    LOCKED_DEAD_LETTERS,
    NO_LINK,
    NOBODY,
    PENDING,
    READY,
    REFUSED,
    RUNNING,
    UNWANTED,
    Account,
    AccountGuard,
    AccountsConfig,
    AccountsWorld,
    Expiry,
    Halfway,
    Mail,
    MailWorker,
)
from tests.model.search import Found, search


class AccountStep(NamedTuple):
    """What happened, to which account or mail, and whether it happens without a person."""

    name: str
    number: int
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.number}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[AccountStep, AccountsWorld]
Check = Callable[[AccountsWorld, AccountStep, AccountsWorld], bool]


def explore_accounts(config: AccountsConfig, checks: dict[str, Check]) -> Found[AccountsWorld]:
    """Visit every world that can be reached."""
    return search(config.initial(), lambda world: accounts_steps(world, config), checks)


def accounts_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    yield from _api_steps(world, config)
    yield from _worker_steps(world, config)
    yield from _relay_steps(world, config)
    yield from _time_steps(world)
    if world.orders:
        for number, mail in enumerate(world.mails):
            if mail.status in (DEAD, REFUSED) and number not in world.expiry.dead_letters:
                ordered = world._replace(orders=world.orders - 1)
                yield (
                    AccountStep("retry", number, is_own=False),
                    ordered.with_mail(number, mail._replace(status=PENDING)),
                )


def _api_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    for name, account in enumerate(world.accounts):
        if account is None:
            yield from _signups(world, config, name)
        elif not account.is_verified and not world.expiry.holds(name) and world.requests and world.halfway is None:
            asked = world._replace(requests=world.requests - 1)
            yield _resend(asked, config, name, account)
            for address in range(config.addresses):
                if address != account.address and not world.is_taken(address):
                    yield _correct(asked, config, name, account, address)
    if world.halfway is not None:
        yield _second_half(world, config, world.halfway)
    for number, mail in enumerate(world.mails):
        if mail.link == GOOD:
            yield from _verifications(world, config, number, mail)


def _signups(world: AccountsWorld, config: AccountsConfig, name: int) -> Iterator[Move]:
    if not world.signups:
        return
    life = world.lives[name] + 1
    lives = (*world.lives[:name], life, *world.lives[name + 1 :])
    for address in range(config.addresses):
        if not world.is_taken(address):
            signed_up = world._replace(signups=world.signups - 1, lives=lives)
            after = _append(signed_up.with_account(name, Account(life, address)), name, life, address)
            yield AccountStep("sign_up", name, f"address {address}", is_own=False), after


def _append(world: AccountsWorld, name: int, life: int, address: int) -> AccountsWorld:
    return world._replace(mails=(*world.mails, Mail(name, life=life, asked_for=address)))


def _resend(world: AccountsWorld, config: AccountsConfig, name: int, account: Account) -> Move:
    if not config.keeps(AccountGuard.APPEND_LOCKS):
        halfway = world._replace(halfway=Halfway(name, account.life, account.address))
        return AccountStep("resend", name, "the account is read", is_own=False), halfway
    after = _append(world, name, account.life, account.address)
    return AccountStep("resend", name, is_own=False), after


def _correct(world: AccountsWorld, config: AccountsConfig, name: int, account: Account, address: int) -> Move:
    mail = len(world.mails)
    appended = _append(world, name, account.life, address)
    if not config.keeps(AccountGuard.CORRECT_AT_ONCE):
        halfway = appended._replace(halfway=Halfway(name, account.life, address, mail))
        return AccountStep("correct", name, "the mail is appended", is_own=False), halfway
    corrected = appended.with_account(name, _corrected(config, account, address, mail))
    return AccountStep("correct", name, f"address {address}", is_own=False), corrected


def _corrected(config: AccountsConfig, account: Account, address: int, mail: int) -> Account:
    first_mail = mail if config.keeps(AccountGuard.CORRECT_FIRST_MAIL) else account.first_mail
    return account._replace(address=address, first_mail=first_mail, is_old=False)


def _second_half(world: AccountsWorld, config: AccountsConfig, halfway: Halfway) -> Move:
    name, life, address, mail = halfway
    whole = world._replace(halfway=None)
    if mail == NOBODY:
        return AccountStep("resend", name, "the mail is appended"), _append(whole, name, life, address)
    account = world.accounts[name]
    if account is not None and account.life == life and not account.is_verified:
        whole = whole.with_account(name, _corrected(config, account, address, mail))
    return AccountStep("correct", name, "the address is set"), whole


def _verifications(world: AccountsWorld, config: AccountsConfig, number: int, mail: Mail) -> Iterator[Move]:
    if world.is_taken(mail.link_address) and config.keeps(AccountGuard.VERIFY_FIRST):
        return
    for name, account in enumerate(world.accounts):
        if account is None or account.is_verified or world.expiry.holds(name):
            continue
        has_address = account.address == mail.link_address
        if has_address or (mail.name == name and not config.keeps(AccountGuard.VERIFY_ADDRESS)):
            verified = world.with_account(name, account._replace(is_verified=True))
            yield AccountStep("verify", name, f"link {number}", is_own=False), verified


def _worker_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    phase, number, address = world.worker
    if phase == IDLE:
        for each, mail in enumerate(world.mails):
            if mail.status == PENDING:
                claimed = world.with_mail(each, mail._replace(status=RUNNING))
                yield AccountStep("claim", each), claimed._replace(worker=MailWorker(CLAIMED, each))
        return
    mail = world.mails[number]

    def ended(status: str) -> AccountsWorld:
        return world.with_mail(number, mail._replace(status=status))._replace(worker=MailWorker())

    yield AccountStep("release", number), ended(PENDING)
    if phase == CLAIMED:
        yield _prepare(world, config, number)
    elif phase == UNWANTED:
        yield AccountStep("discard_claims", number), ended(DISCARDED)
    else:
        for status in (DONE, DEAD, REFUSED):
            yield AccountStep("send", number, f"{status}, to address {address}"), ended(status)


def _prepare(world: AccountsWorld, config: AccountsConfig, number: int) -> Move:
    mail = world.mails[number]
    account = world.accounts[mail.name]
    if account is None:
        dead = world.with_mail(number, mail._replace(status=DEAD))._replace(worker=MailWorker())
        return AccountStep("prepare", number, "no such account"), dead
    newest_from_before = account.first_mail - config.keeps(AccountGuard.PREPARE_OWN_MAIL)
    is_corrected = number <= newest_from_before and config.keeps(AccountGuard.PREPARE_FIRST_MAIL)
    is_verified = world.is_taken(account.address) and config.keeps(AccountGuard.PREPARE_VERIFIED)
    if is_corrected or is_verified:
        unwanted = MailWorker(UNWANTED, number)
        return AccountStep("prepare", number, UNWANTED), world._replace(worker=unwanted)
    made = world.with_mail(number, mail._replace(link=GOOD, link_address=account.address))
    return AccountStep("prepare", number), made._replace(worker=MailWorker(READY, number, account.address))


def _relay_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    """One transaction. Its relay may die between any two steps: nothing of it stays."""
    phase, names, dead_letters = world.expiry
    if phase == IDLE:
        found = tuple(name for name in range(config.names) if _may_go(world, config, name))
        if found:
            yield AccountStep("find", found[0]), world._replace(expiry=Expiry(FOUND, found))
        return
    yield AccountStep("crash", NOBODY), world._replace(expiry=Expiry())
    if phase == FOUND:
        kept = tuple(name for name in names if _is_due(world, config, name))
        if kept and not config.keeps(AccountGuard.EXPIRE_LOCKS):
            yield AccountStep("lock", kept[0], "not locked"), world._replace(expiry=Expiry(FOUND + " again", kept))
        elif kept:
            yield AccountStep("lock", kept[0]), world._replace(expiry=Expiry(LOCKED, kept))
    elif phase in (LOCKED, FOUND + " again"):
        refused = tuple(
            number for number, mail in enumerate(world.mails) if mail.status == REFUSED and mail.name in names
        )
        locked = refused if config.keeps(AccountGuard.EXPIRE_LOCKS_DEAD_LETTERS) else ()
        then = LOCKED_DEAD_LETTERS if phase == LOCKED else "to check"
        yield AccountStep("lock_dead_letters", names[0]), world._replace(expiry=Expiry(then, names, locked))
    elif phase in (LOCKED_DEAD_LETTERS, "to check"):
        gone = names
        if config.keeps(AccountGuard.EXPIRE_LOOKS_AGAIN):
            gone = tuple(name for name in names if _may_go(world, config, name, dead_letters))
        if gone:
            then = CHECKED if phase == LOCKED_DEAD_LETTERS else "to delete"
            yield AccountStep("look_again", gone[0]), world._replace(expiry=Expiry(then, gone, dead_letters))
    else:
        yield AccountStep("delete", names[0], f"accounts {names}"), _deleted(world, config, names)


def _is_due(world: AccountsWorld, config: AccountsConfig, name: int) -> bool:
    """What the account's row itself says."""
    account = world.accounts[name]
    if account is None or (account.is_verified and config.keeps(AccountGuard.EXPIRE_UNVERIFIED)):
        return False
    return account.is_old or not config.keeps(AccountGuard.EXPIRE_AGE)


def _may_go(
    world: AccountsWorld, config: AccountsConfig, name: int, dead_letters: tuple[int, ...] | None = None
) -> bool:
    """Return whether nothing is ahead of an account. `dead_letters`: of its dead letters only these go with it."""
    if not _is_due(world, config, name):
        return False
    kept = {status for status in LIVE if status != REFUSED}
    if not config.keeps(AccountGuard.EXPIRE_WAITING):
        kept -= {PENDING, RUNNING}
    if not config.keeps(AccountGuard.EXPIRE_DEAD):
        kept -= {DEAD}
    account = world.accounts[name]
    for number, mail in enumerate(world.mails):
        if mail.name != name:
            if _comes_to(world, account, mail) and config.keeps(AccountGuard.EXPIRE_ADDRESS):
                return False
            continue
        if mail.status in kept:
            return False
        locks_dead_letters = dead_letters is not None and config.keeps(AccountGuard.EXPIRE_LOCKS_DEAD_LETTERS)
        if mail.status == REFUSED and locks_dead_letters and number not in (dead_letters or ()):
            return False
        if mail.link in (GOOD, ENDED) and config.keeps(AccountGuard.EXPIRE_LINKS):
            return False
    return True


def _comes_to(world: AccountsWorld, account: Account | None, mail: Mail) -> bool:
    """Return whether another unverified account's mail brings, or has brought, a link to this account's address."""
    other = world.accounts[mail.name]
    if account is None or other is None or other.is_verified or other.address != account.address:
        return False
    return mail.status in (PENDING, RUNNING, DEAD) or mail.link in (GOOD, ENDED)


def _deleted(world: AccountsWorld, config: AccountsConfig, names: tuple[int, ...]) -> AccountsWorld:
    """The accounts are gone, and with them their links and the dead letters because of their recipients."""
    refused_becomes = DISCARDED if config.keeps(AccountGuard.EXPIRE_DISCARDS) else REFUSED
    mails = tuple(
        mail._replace(
            link=NO_LINK, link_address=NOBODY, status=refused_becomes if mail.status == REFUSED else mail.status
        )
        if mail.name in names
        else mail
        for mail in world.mails
    )
    accounts = tuple(None if name in names else account for name, account in enumerate(world.accounts))
    return world._replace(accounts=accounts, mails=mails, expiry=Expiry())


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
