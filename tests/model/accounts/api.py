"""The steps of the API: sign up, resend a mail, correct an address, verify one by a link."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.accounts.state import (
    GOOD,
    NOBODY,
    PENDING,
    Account,
    AccountGuard,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
    Halfway,
    Mail,
    Move,
)


def api_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    for name, account in enumerate(world.accounts):
        if account is None:
            yield from _signups(world, config, name)
        elif not account.is_verified and not world.expiry.holds(name) and world.requests and world.halfway is None:
            asked = world._replace(requests=world.requests - 1)
            yield _resend(asked, config, name, account)
            yield from _joined_resends(asked, config, name, account)
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


def _joined_resends(world: AccountsWorld, config: AccountsConfig, name: int, account: Account) -> Iterator[Move]:
    """The mail has the same dedup key. If its row is locked for long, the resend appends one of its own."""
    for number, mail in enumerate(world.mails if config.joins else ()):
        is_present = mail.life == account.life and number >= account.first_mail
        has_key = mail.name == name and (is_present or not config.keeps(AccountGuard.RESEND_JOINS_PRESENT))
        if has_key and mail.status == PENDING and mail.is_unclaimed:
            yield AccountStep("resend", name, f"part of mail {number}", is_own=False), world


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
