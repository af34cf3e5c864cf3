"""Compare the answers that clients got with what was committed and what arrived."""

from collections import Counter, defaultdict
from typing import Final

from tests.chaos.checking.account import Account
from tests.chaos.checking.causes import Extra, cause_of, explain_copies
from tests.chaos.checking.evidence import Claim, Copy, Evidence
from tests.chaos.checking.jobs import settle_jobs

_ON_THE_WAY: Final = frozenset({"pending", "published", "running"})
"""Late, not lost: with such a message a run has not become quiet, and so has failed all the same."""

_EXPECTED_ANSWERS: Final = frozenset({"200", "201", "503"})
_TERM_SECONDS: Final = {"relay": 6.0, "worker": 15.0}
"""A process that was asked to end is gone by then: a send's deadline (4 s), its outcome (5 s), and a busy machine."""


def settle(evidence: Evidence) -> Account:
    """Return the account of a run."""
    account = Account()
    _settle_signups(evidence, account)
    _settle_mails(evidence, account)
    _settle_copies(evidence, account)
    settle_jobs(evidence, account)
    _settle_messages(evidence, account)
    _settle_attempts(evidence, account)
    _settle_processes(evidence, account)
    seconds = evidence.seconds_to_quiet
    account.figures["seconds to the last answer"] = round(evidence.seconds_to_answers, 1)
    account.figures["seconds to quiet"] = "never" if seconds is None else round(seconds, 1)
    if seconds is None:
        account.wrong.append("it did not become quiet: messages are neither done nor dead")
    account.faults = dict(sorted(Counter(fault.kind for fault in evidence.faults).items()))
    account.figures["faults"] = len(evidence.faults)
    return account


def _settle_signups(evidence: Evidence, account: Account) -> None:
    answers: Counter[str] = Counter()
    for signup in evidence.signups:
        answers.update(signup.answers)
    acknowledged = [signup for signup in evidence.signups if signup.acknowledged_by is not None]
    account.figures["signups"] = len(evidence.signups)
    account.figures["acknowledged"] = len(acknowledged)
    account.figures["acknowledged by a 200 for their own"] = sum(
        signup.acknowledged_by == 200 for signup in acknowledged
    )
    account.figures["repeated"] = sum(sum(signup.answers.values()) > 1 for signup in evidence.signups)
    account.figures["committed"] = len(evidence.users)
    for signup in evidence.signups:
        if signup.acknowledged_by is None:
            account.wrong.append(f"{signup.username} was never answered: {signup.answers}")
    unexpected = {
        answer: count for answer, count in answers.items() if answer[:1].isdigit() and answer not in _EXPECTED_ANSWERS
    }
    account.remarks.append("answers: " + ", ".join(f"{answer} ({count})" for answer, count in answers.most_common()))
    if unexpected:
        account.wrong.append(f"answers that no user should get: {unexpected}")


def _settle_mails(evidence: Evidence, account: Account) -> None:
    mailed = {copy.recipient for copy in evidence.copies}
    account.figures["mailed"] = len(mailed & set(evidence.users.values()))
    lost = [
        f"lost: {signup.username} was answered {signup.acknowledged_by} and is not committed"
        for signup in evidence.signups
        if signup.acknowledged_by is not None and evidence.users.get(signup.username) != signup.email
    ]
    states = {message.username: message.status for message in evidence.messages.values()}
    without_mail = [username for username, email in evidence.users.items() if email not in mailed]
    waiting = {username for username in without_mail if states.get(username) in _ON_THE_WAY}
    lost += [
        f"lost: {username} is committed and got no mail, the message is {states.get(username, 'nowhere')}"
        for username in without_mail
        if username not in waiting
    ]
    ghosts = [f"ghost: {_story_of_copy(copy)}" for copy in evidence.copies if _is_ghost(copy, evidence)]
    account.figures["not mailed yet"] = len(waiting)
    account.figures["lost"] = len(lost)
    account.figures["ghosts"] = len(ghosts)
    account.wrong += lost + ghosts + [f"late: the mail to {username} is on its way" for username in sorted(waiting)]


def _is_ghost(copy: Copy, evidence: Evidence) -> bool:
    """Return whether a mail belongs to no committed user, or to a message that is not this user's."""
    message = evidence.messages.get(copy.message_id or 0)
    return message is None or evidence.users.get(message.username or "") != copy.recipient


def _settle_copies(evidence: Evidence, account: Account) -> None:
    by_message: defaultdict[int | None, list[Copy]] = defaultdict(list)
    for copy in evidence.copies:
        by_message[copy.message_id].append(copy)
    claims = _claims_by_message(evidence)
    extras: list[Extra] = []
    wrong_links = 0
    for message_id, copies in by_message.items():
        extras += explain_copies(copies, claims.get(message_id or 0, []), evidence.faults)
        links = {copy.link for copy in copies}
        if len(links) > 1 or not all(copy.is_authentic for copy in copies):
            wrong_links += 1
            account.wrong.append(f"the link differs or is not ours in message {message_id}: {sorted(links)}")
    unexplained = [extra for extra in extras if extra.cause is None]
    account.figures["duplicates"] = len(extras)
    account.figures["duplicates explained"] = len(extras) - len(unexplained)
    account.figures["duplicates unexplained"] = len(unexplained)
    account.figures["messages with differing links"] = wrong_links
    for extra in unexplained:
        claim = "no claim" if extra.claim is None else _story_of_claim(extra.claim)
        account.wrong.append(f"duplicate without a cause: message {extra.message_id}, {claim}")
    explained = Counter(_kind_of(extra.cause.text) for extra in extras if extra.cause is not None)
    account.remarks += [f"{count} duplicates: {text}" for text, count in explained.most_common()]


def _settle_messages(evidence: Evidence, account: Account) -> None:
    unaccounted = sorted(evidence.seen_ids - set(evidence.messages))
    dead = [message for message in evidence.messages.values() if message.status == "dead"]
    account.figures["messages seen"] = len(evidence.seen_ids)
    account.figures["messages unaccounted for"] = len(unaccounted)
    account.figures["dead letters"] = len(dead)
    account.wrong += [f"message {message_id} was seen and is nowhere" for message_id in unaccounted]
    account.remarks += [f"message {message.id} is a dead letter" for message in dead]


def _settle_attempts(evidence: Evidence, account: Account) -> None:
    ends = Counter(claim.end for claim in evidence.claims)
    by_outage, without_cause = [], []
    causes: Counter[str] = Counter()
    for claim in evidence.claims:
        if claim.end not in {"spent", "dead"}:
            continue
        cause = cause_of(claim, evidence.faults)
        if cause is None:
            without_cause.append(claim)
        elif cause.is_outage:
            by_outage.append(claim)
        else:
            causes[_kind_of(cause.text)] += 1
    account.figures["claims"] = len(evidence.claims)
    account.figures["attempts given back"] = ends["given back"]
    account.figures["attempts spent"] = ends["spent"] + ends["dead"]
    account.figures["attempts spent by outages"] = len(by_outage)
    account.figures["attempts spent without a cause"] = len(without_cause)
    account.remarks += [f"{count} attempts: {text}" for text, count in causes.most_common()]
    account.wrong += [f"an outage spent an attempt: {_story_of_claim(claim)}" for claim in by_outage]
    account.wrong += [f"an attempt was spent without a cause: {_story_of_claim(claim)}" for claim in without_cause]
    account.wrong += [f"two claims are done: message {message_id}" for message_id in _done_twice(evidence)]


def _done_twice(evidence: Evidence) -> list[int]:
    done = Counter(claim.message_id for claim in evidence.claims if claim.end == "done")
    return [message_id for message_id, count in done.items() if count > 1]


def _settle_processes(evidence: Evidence, account: Account) -> None:
    account.figures["processes started again"] = len(evidence.exits)
    codes = Counter(f"{exit_.name.partition('-')[0]} {exit_.code}" for exit_ in evidence.exits)
    if codes:
        account.remarks.append(
            "exit codes: " + ", ".join(f"{code} ({count} times)" for code, count in sorted(codes.items()))
        )
    for fault in evidence.faults:
        limit = _TERM_SECONDS.get(fault.kind.removesuffix("-term"))
        if limit is not None and fault.ended - fault.began > limit:
            account.remarks.append(f"{fault.target} took {fault.ended - fault.began:.1f} s to end after SIGTERM")


def _claims_by_message(evidence: Evidence) -> dict[int, list[Claim]]:
    found: defaultdict[int, list[Claim]] = defaultdict(list)
    for claim in evidence.claims:
        found[claim.message_id].append(claim)
    return found


def _kind_of(text: str) -> str:
    """Leave the process's number out, so that like causes are counted together."""
    return text.rstrip("0123456789").removesuffix("-")


def _story_of_copy(copy: Copy) -> str:
    return f"{copy.name} to {copy.recipient} for message {copy.message_id}"


def _story_of_claim(claim: Claim) -> str:
    return (
        f"message {claim.message_id}, attempt {claim.attempt} by {claim.by}, {claim.began:.3f} to {claim.ended:.3f},"
        f" {claim.end} by {claim.ended_by}: {claim.reason or 'no reason'}"
    )
