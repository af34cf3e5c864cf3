"""The steps of the relay: its transaction that deletes accounts which nobody has verified."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.accounts.state import (
    CHECKED,
    DEAD,
    DISCARDED,
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
    REFUSED,
    RUNNING,
    Account,
    AccountGuard,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
    Expiry,
    Mail,
    Move,
)


def expiry_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
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
