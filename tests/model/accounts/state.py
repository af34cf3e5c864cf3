"""The state of the model of accounts whose address is not verified yet: what can be seen at one moment.

steps.py says what is left out, and lists the steps that are possible in a world; test_accounts.py has what must hold.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

PENDING: Final = "pending"  # or published: nobody works on it
RUNNING: Final = "running"
DONE: Final = "done"
DISCARDED: Final = "discarded"
DEAD: Final = "dead"  # for another reason than its recipient
REFUSED: Final = "refused"  # a dead letter because of its recipient
LIVE: Final = frozenset({PENDING, RUNNING, DEAD, REFUSED})

NO_LINK: Final = "no link"  # or one whose life was over UNVERIFIED_DAYS ago: it means nothing any more
GOOD: Final = "good"
ENDED: Final = "ended"  # its life is over

IDLE: Final = "idle"
CLAIMED: Final = "claimed"
READY: Final = "ready"  # the mail is made
UNWANTED: Final = "unwanted"  # nobody needs it any more

FOUND: Final = "found"  # accounts that look as if they may go
LOCKED: Final = "locked"
LOCKED_DEAD_LETTERS: Final = "locked with their dead letters"
CHECKED: Final = "checked"  # looked at again, with a new snapshot

NOBODY: Final = -1


class AccountGuard(Enum):
    """One clause of the rules about accounts that are not verified."""

    EXPIRE_UNVERIFIED = "expire: no account that is verified"
    EXPIRE_AGE = "expire: UNVERIFIED_DAYS after creation and last correction"
    EXPIRE_LINKS = "expire: UNVERIFIED_DAYS after the end of the newest link's life"
    EXPIRE_WAITING = "expire: not while a mail is pending, published or running"
    EXPIRE_DEAD = "expire: not while a mail is a dead letter for another reason than its recipient"
    EXPIRE_ADDRESS = "expire: not while a mail or a link of another unverified account of the address is there"
    EXPIRE_LOCKS = "expire: accounts are locked before they are looked at again"
    EXPIRE_LOCKS_DEAD_LETTERS = "expire: the dead letters that go with an account are locked, too"
    EXPIRE_LOOKS_AGAIN = "expire: after that a new snapshot decides"
    EXPIRE_DISCARDS = "expire: dead letters because of the recipient are discarded with their account"
    RESEND_JOINS_PRESENT = "resend: becomes part of a mail that was asked for since the account's last correction"
    APPEND_LOCKS = "resend: the account's row is locked in the statement that appends"
    CORRECT_AT_ONCE = "correct: address, first_mail_id and message are one statement"
    CORRECT_FIRST_MAIL = "correct: first_mail_id is the new message"
    PREPARE_FIRST_MAIL = "prepare: a mail from before first_mail_id is discarded"
    PREPARE_OWN_MAIL = "prepare: the correction's own mail is not from before it"
    PREPARE_VERIFIED = "prepare: a mail to a verified address is discarded"
    VERIFY_ADDRESS = "verify: only an account that has the link's address now"
    VERIFY_FIRST = "verify: only while no account with the address is verified"

    __hash__ = object.__hash__


class Account(NamedTuple):
    """An account. Its life says how often its name was taken before it."""

    life: int
    address: int
    is_verified: bool = False
    first_mail: int = NOBODY
    is_old: bool = False  # created and last corrected UNVERIFIED_DAYS ago


class Mail(NamedTuple):
    """A verification mail's message and its link. The fields between its status and its link are history."""

    name: int
    status: str = PENDING
    life: int = 0  # the account that it was appended for
    asked_for: int = NOBODY  # the address that it was appended for
    is_unclaimed: bool = True  # no worker has claimed it yet
    link: str = NO_LINK
    link_address: int = NOBODY


class MailWorker(NamedTuple):
    """A worker with at most one message in hand."""

    phase: str = IDLE
    mail: int = NOBODY
    address: int = NOBODY  # to which its mail is made


class Expiry(NamedTuple):
    """A relay's transaction that deletes accounts."""

    phase: str = IDLE
    names: tuple[int, ...] = ()
    dead_letters: tuple[int, ...] = ()  # the dead letters that it has locked

    def holds(self, name: int) -> bool:
        return self.phase in (LOCKED, LOCKED_DEAD_LETTERS, CHECKED) and name in self.names


class Halfway(NamedTuple):
    """A statement that should be one and is two: only without a guard."""

    name: int
    life: int
    address: int
    mail: int = NOBODY


class AccountsWorld(NamedTuple):
    """Everything at one moment."""

    accounts: tuple[Account | None, ...]  # by name
    mails: tuple[Mail, ...] = ()
    worker: MailWorker = MailWorker()
    expiry: Expiry = Expiry()
    lives: tuple[int, ...] = ()  # by name
    halfway: Halfway | None = None
    signups: int = 0  # that may still come
    requests: int = 0  # resends and corrections that may still come
    orders: int = 0

    def with_account(self, name: int, account: Account | None) -> AccountsWorld:
        return self._replace(accounts=(*self.accounts[:name], account, *self.accounts[name + 1 :]))

    def with_mail(self, number: int, mail: Mail) -> AccountsWorld:
        return self._replace(mails=(*self.mails[:number], mail, *self.mails[number + 1 :]))

    def is_taken(self, address: int) -> bool:
        return any(each is not None and each.is_verified and each.address == address for each in self.accounts)


class AccountsConfig(NamedTuple):
    """How large one exploration is, and which guards it leaves out."""

    names: int = 1
    addresses: int = 2
    signups: int = 1
    requests: int = 1
    orders: int = 0
    joins: bool = True  # a resend may become part of a mail that waits for its first claim
    without: frozenset[AccountGuard] = frozenset()

    def keeps(self, guard: AccountGuard) -> bool:
        return guard not in self.without

    def initial(self) -> AccountsWorld:
        return AccountsWorld(
            accounts=(None,) * self.names,
            lives=(0,) * self.names,
            signups=self.signups,
            requests=self.requests,
            orders=self.orders,
        )


class AccountStep(NamedTuple):
    """What happened, to which account or mail, and whether it happens without a person."""

    name: str
    number: int
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.number}" + (f" ({self.remark})" if self.remark else "")


Move = tuple[AccountStep, AccountsWorld]
