"""Accounts, their mails and the relay's expiry, which take the steps of the model of accounts with the real statements.

What the API writes is written here as other services write it (docs/concepts/accounts.md): the account's row is locked
in the statement that appends. `find` and `lock` are one statement in reality, and so are `look_again` and `delete`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from consumer.model.outcomes import Discarded, Failed
from consumer.task import Context, Mail
from consumer.tasks.verify_email import prepare
from outbox_relay.loop.maintenance import expiry_statements
from shared.database.connections import connect
from shared.outbox.claiming import claims, releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.messages import Message, SendVerifyEmail
from shared.outbox.operations import dead_letters
from shared.settings.consumer import ConsumerSettings
from tests.model.accounts.state import (
    DONE,
    ENDED,
    GOOD,
    NO_LINK,
    NOBODY,
    READY,
    REFUSED,
    AccountStep,
    AccountsWorld,
)
from tests.sql_against_model.moment import agree

DAYS: Final = 7.0
_LONG_SECONDS: Final = 3600.0
_ADDRESSES: Final = ("a@example.com", "b@example.com")


def _name(number: int) -> str:
    return f"user_{number}"


def append_nothing(_message: Message, _delay_seconds: float) -> None:
    raise AssertionError("a mail's task appends no message")


class AccountsService:
    """Takes steps, and holds what can be seen against the model's world."""

    def __init__(self, database_url: str, settings: ConsumerSettings) -> None:
        self.settings = settings
        self.own, self.relay, self.worker = (connect(database_url, "test") for _ in range(3))
        for connection in (self.own, self.worker):
            connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        self.taken: Counter[str] = Counter()
        self.ids: list[int] = []

    def begin(self) -> None:
        self.relay.execute("ROLLBACK")
        self.own.execute("TRUNCATE users, verify_emails, outbox, outbox_finished")
        self.ids = []
        self.claim_in_hand: Claim | None = None
        self.names: list[str] = []
        self.dead_letters: list[int] = []

    def close(self) -> None:
        for connection in (self.own, self.relay, self.worker):
            connection.close()

    def take(self, step: AccountStep, before: AccountsWorld, after: AccountsWorld) -> None:
        take: Callable[[AccountStep, AccountsWorld, AccountsWorld], None] = getattr(self, step.name)
        take(step, before, after)
        self.taken[step.name] += 1
        self.compare(after)

    def compare(self, world: AccountsWorld) -> None:
        accounts = {
            _name(number): (
                _ADDRESSES[account.address],
                account.is_verified,
                None if account.first_mail == NOBODY else self.ids[account.first_mail],
            )
            for number, account in enumerate(world.accounts)
            if account is not None
        }
        rows = self.own.execute("SELECT username, email, is_email_verified, first_mail_id FROM users").fetchall()
        agree("accounts", accounts, {username: tuple(rest) for username, *rest in rows})
        mails = self.own.execute(
            """
            SELECT m.id, CASE WHEN m.status = 'dead' AND m.failures -> -1 -> 'about_recipient' = 'true' THEN %s
                              ELSE m.status END,
                   CASE WHEN v.expires_at > now() THEN %s
                        WHEN v.expires_at > now() - interval '7 days' THEN %s ELSE %s END,
                   CASE WHEN v.expires_at > now() - interval '7 days' THEN v.email END
              FROM outbox_messages AS m
              LEFT JOIN verify_emails AS v ON v.message_id = m.id
             ORDER BY m.id
            """,
            [REFUSED, GOOD, ENDED, NO_LINK],
        ).fetchall()
        expected = [
            (id_, mail.status, mail.link, None if mail.link == NO_LINK else _ADDRESSES[mail.link_address])
            for id_, mail in zip(self.ids, world.mails, strict=True)
        ]
        agree("mails", expected, mails)

    # ---- the API, in the words of another service

    def sign_up(self, step: AccountStep, _before: AccountsWorld, after: AccountsWorld) -> None:
        account = after.accounts[step.number]
        assert account is not None
        self._append(
            """
            WITH account AS (
                INSERT INTO users (username, email, full_name, hashed_password)
                VALUES (%(name)s, %(address)s, '', '') RETURNING username
            )
            """,
            {"name": _name(step.number), "address": _ADDRESSES[account.address]},
        )

    def resend(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self._append(_LOCKED_ACCOUNT, {"name": _name(step.number)})

    def correct(self, step: AccountStep, _before: AccountsWorld, after: AccountsWorld) -> None:
        account = after.accounts[step.number]
        assert account is not None
        [(id_,)] = self.own.execute(
            f"""
            {_LOCKED_ACCOUNT}, message AS ({_MESSAGE})
            UPDATE users SET email = %(address)s, first_mail_id = message.id, email_set_at = now()
              FROM message WHERE username = %(name)s
            RETURNING first_mail_id
            """.encode(),
            {"name": _name(step.number), "task": SendVerifyEmail.task, "address": _ADDRESSES[account.address]},
        ).fetchall()
        self.ids.append(id_)

    def verify(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self.own.execute("UPDATE users SET is_email_verified = true WHERE username = %s", [_name(step.number)])

    def _append(self, account: str, values: dict[str, Any]) -> None:
        [(id_,)] = self.own.execute(
            f"{account} {_MESSAGE}".encode(), {"task": SendVerifyEmail.task, **values}
        ).fetchall()
        self.ids.append(id_)

    # ---- the worker

    def claim(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        [self.claim_in_hand] = claims.claim(self.worker, [self.ids[step.number]], uuid4(), _LONG_SECONDS)

    def prepare(self, step: AccountStep, before: AccountsWorld, after: AccountsWorld) -> None:
        id_ = self.ids[step.number]
        name = _name(before.mails[step.number].name)
        context = Context(self.settings, append_nothing, connection=self.worker)
        made = prepare(context, {id_: SendVerifyEmail(name)})[id_]
        if after.worker.phase == READY:
            agree("recipient", _ADDRESSES[after.worker.address], made.recipient if isinstance(made, Mail) else made)
        else:
            agree("not wanted", model=True, real=isinstance(made, Discarded))

    def send(self, step: AccountStep, _before: AccountsWorld, after: AccountsWorld) -> None:
        status = after.mails[step.number].status
        if status == DONE:
            agree("ack", {self._claim.id}, claims.ack(self.worker, [self._claim]))
            return
        failure = Failed("no", is_permanent=True, is_about_recipient=status == REFUSED)
        is_ours = claims.fail(
            self.worker, self._claim, failure.reason, details=failure.details, delay_seconds=0, is_dead=True
        )
        agree("fail", model=True, real=is_ours)

    def release(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        agree("release", {self._claim.id}, releases.release(self.worker, [self._claim], None))

    def discard_claims(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        agree("discard", {self._claim.id}, claims.discard_claims(self.worker, {self._claim: "not needed"}))

    @property
    def _claim(self) -> Claim:
        assert self.claim_in_hand is not None
        return self.claim_in_hand

    # ---- the relay

    def find(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        """Part of lock."""

    def find_nothing(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self.relay.execute("BEGIN")
        locked = expiry_statements.lock_accounts(self.relay, DAYS, 10, expiry_statements.FIRST)
        agree("locked", [], locked.usernames)
        self.relay.execute("ROLLBACK")

    def lock(self, _step: AccountStep, _before: AccountsWorld, after: AccountsWorld) -> None:
        self.relay.execute("BEGIN")
        locked = expiry_statements.lock_accounts(self.relay, DAYS, 10, expiry_statements.FIRST)
        self.names = sorted(locked.usernames)
        agree("locked", [_name(number) for number in after.expiry.names], self.names)

    def lock_dead_letters(self, _step: AccountStep, _before: AccountsWorld, after: AccountsWorld) -> None:
        self.dead_letters = expiry_statements.lock_refused_mails(self.relay, self.names)
        agree("dead_letters", [self.ids[number] for number in after.expiry.dead_letters], self.dead_letters)

    def look_again(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        """Part of delete."""

    def delete(self, _step: AccountStep, before: AccountsWorld, _after: AccountsWorld) -> None:
        deleted = expiry_statements.delete_accounts(self.relay, DAYS, self.names, self.dead_letters)
        agree("deleted", len(before.expiry.names), deleted)
        self.relay.execute("COMMIT")

    def delete_nothing(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        agree("deleted", 0, expiry_statements.delete_accounts(self.relay, DAYS, self.names, self.dead_letters))

    def crash(self, _step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self.relay.execute("ROLLBACK")

    # ---- the operator, and time

    def retry(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        agree("retried", model=True, real=dead_letters.retry(self.own, self.ids[step.number]))

    def link_ends(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self._end_link(step, "1 hour")

    def link_long_ended(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self._end_link(step, "8 days")

    def _end_link(self, step: AccountStep, ago: str) -> None:
        self.own.execute(
            "UPDATE verify_emails SET expires_at = now() - %s::interval WHERE message_id = %s",
            [ago, self.ids[step.number]],
        )

    def grows_old(self, step: AccountStep, _before: AccountsWorld, _after: AccountsWorld) -> None:
        self.own.execute(
            "UPDATE users SET created_at = now() - interval '9 days', email_set_at = email_set_at - interval '9 days'"
            " WHERE username = %s",
            [_name(step.number)],
        )


_LOCKED_ACCOUNT: Final = """
    WITH account AS (SELECT username FROM users WHERE username = %(name)s AND NOT is_email_verified FOR KEY SHARE)
"""
_MESSAGE: Final = """
    INSERT INTO outbox (task, payload)
    SELECT %(task)s, jsonb_build_object('username', username) FROM account
    RETURNING id
"""
