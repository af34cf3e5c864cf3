"""The steps of the worker: claim a message, prepare its mail, send it or end the claim in another way."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.accounts.state import (
    CLAIMED,
    DEAD,
    DISCARDED,
    DONE,
    GOOD,
    IDLE,
    PENDING,
    READY,
    REFUSED,
    RUNNING,
    UNWANTED,
    AccountGuard,
    AccountsConfig,
    AccountStep,
    AccountsWorld,
    MailWorker,
    Move,
)


def worker_steps(world: AccountsWorld, config: AccountsConfig) -> Iterator[Move]:
    phase, number, address = world.worker
    if phase == IDLE:
        for each, mail in enumerate(world.mails):
            if mail.status == PENDING:
                claimed = world.with_mail(each, mail._replace(status=RUNNING, is_unclaimed=False))
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
