"""Compare the jobs that were committed with their effects, and with the requests that the slow service got."""

from collections import Counter, defaultdict
from typing import Final

from tests.chaos.checking.account import Account
from tests.chaos.checking.causes import explain_calls
from tests.chaos.checking.evidence import Call, Claim, Evidence, Job

_COUNT, _SLOW, _DOWN = "chaos:count", "chaos:slow", "chaos:down"
_WAITING: Final = frozenset({"pending", "published", "running"})


def settle_jobs(evidence: Evidence, account: Account) -> None:
    """Add what became of the run's own tasks to the account."""
    jobs = {job.number: job for job in evidence.jobs}
    _settle_effects(evidence, jobs, account)
    _settle_calls(evidence, jobs, account)
    down = [job for job in evidence.jobs if job.task == _DOWN]
    gone = [job for job in down if _status_of(job, evidence) not in _WAITING]
    account.figures["messages for the destination that is down"] = len(down)
    account.wrong += [
        f"job {job.number} for the destination that is down is {_status_of(job, evidence)}" for job in gone
    ]


def _settle_effects(evidence: Evidence, jobs: dict[int, Job], account: Account) -> None:
    effects = Counter(evidence.effects)
    counted = [job for job in jobs.values() if job.task != _DOWN]
    account.figures["Done() jobs"] = len(counted)
    account.figures["Done() effects"] = len(evidence.effects)
    for job in counted:
        if effects[job.number] != 1:
            status = _status_of(job, evidence)
            account.wrong.append(
                f"job {job.number} ({job.task}) has {effects[job.number]} effects, its message is {status}"
            )
    account.wrong += [
        f"ghost: an effect of job {number}, which was never committed"
        for number in effects
        if number not in jobs or jobs[number].task == _DOWN
    ]


def _settle_calls(evidence: Evidence, jobs: dict[int, Job], account: Account) -> None:
    by_job: defaultdict[int, list[Call]] = defaultdict(list)
    for call in evidence.calls:
        by_job[call.job].append(call)
    claims: defaultdict[int, list[Claim]] = defaultdict(list)
    for claim in evidence.claims:
        claims[claim.message_id].append(claim)
    explained = 0
    for number, calls in by_job.items():
        job = jobs.get(number)
        if job is None:
            account.wrong.append(f"ghost: a request for job {number}, which was never committed")
            continue
        causes = explain_calls(calls, claims[job.message_id], evidence.faults)
        explained += sum(cause is not None for cause in causes)
        account.wrong += [f"a request for job {number} was repeated without a cause" for cause in causes if not cause]
        if len({call.key for call in calls}) > 1:
            account.wrong.append(f"the requests for job {number} have different keys")
    slow = [job for job in jobs.values() if job.task == _SLOW]
    account.wrong += [
        f"lost: job {job.number} asked the slow service nothing" for job in slow if not by_job[job.number]
    ]
    account.figures["messages for the slow destination"] = len(slow)
    account.figures["requests that the slow service got"] = len(evidence.calls)
    account.figures["requests repeated with a cause"] = explained


def _status_of(job: Job, evidence: Evidence) -> str:
    message = evidence.messages.get(job.message_id)
    return "nowhere" if message is None else message.status
