"""The crash points: the moments at which a process is killed, each before or after a call of one function.

The product contains no code for them: `launch` wraps the function from outside.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Literal

from tests.crash.givens import Given

Call = Callable[[tuple[Any, ...], object], bool]
Program = Literal["relay", "OutboxWorker", "stock worker"]

_PROBE_WITHOUT_ANSWER: Final[Given] = "an open breaker and a mail server that does not answer"

_LATE_ANSWER: Final[Given] = "a message that met silence and a mail server that does not answer yet"

COMMIT: Final = "shared.database.connections:commit"


def _any_call(_args: tuple[Any, ...], _result: object) -> bool:
    return True


def _brings_something(_args: tuple[Any, ...], result: object) -> bool:
    return bool(result)


def _is_the_last_dot(args: tuple[Any, ...], _result: object) -> bool:
    return bool(args[-1] == b".\r\n")


def _asks_for_data(args: tuple[Any, ...], _result: object) -> bool:
    return bool(args[-1] == "DATA")


@dataclass(frozen=True)
class Point:
    """One crash point of one program, and the state that is expected after another process has taken over.

    Attributes:
        name: what a reader calls the moment.
        program: who dies.
        function: `module:name` of what is wrapped.
        when: before or after its call.
        past: a function that has to have returned before, so that of many calls (COMMITs, say) the right one counts.
        that: which calls count; an `after` knows the result too.
        given: what the program finds.
        mails: how many copies may arrive, of the mail or of the webhook.
        attempt: how many attempts the message has spent in the end.
        whose: the stock worker's parent, or its work horse: together with the parent, or alone.

    """

    name: str
    program: Program
    function: str
    when: Literal["before", "after"]
    past: str | None = None
    that: Call = _any_call
    given: Given = "a message"
    mails: tuple[int, ...] = (1,)
    attempt: int = 1
    whose: Literal["parent", "horse and parent", "horse"] = "parent"

    @property
    def key(self) -> str:
        """Name the point in a test's name and on the launcher's command line."""
        alone = ", the horse alone" if self.whose == "horse" else ""
        return f"{self.program}: {self.when} {self.name}{alone}"


def _around(name: str, program: Program, function: str, **rest: Any) -> list[Point]:
    return [Point(name, program, function, "before", **rest), Point(name, program, function, "after", **rest)]


def _publishing() -> list[Point]:
    sql, push = "shared.outbox.publishing", "outbox_relay.broker:Broker.push"
    probe: dict[str, Any] = {"given": "an open breaker"}
    return [
        *_around("take_batch", "relay", f"{sql}:take_batch"),
        *_around("push", "relay", push),
        *_around("mark_published", "relay", f"{sql}:mark_published"),
        *_around("the batch's COMMIT", "relay", COMMIT, past=f"{sql}:mark_published"),
        *_around("take_probe", "relay", f"{sql}:take_probe", **probe),
        *_around("push of a probe", "relay", push, **probe),
        *_around("mark_probe", "relay", f"{sql}:mark_probe", **probe),
        *_around("the probe's COMMIT", "relay", COMMIT, past=f"{sql}:mark_probe", **probe),
        *_around("discover", "relay", "shared.outbox.discovery:discover"),
    ]


def _relay_points() -> list[Point]:
    reaping, broker = "shared.outbox.reaping", "outbox_relay.broker:Broker"
    lost: Given = "a lost job"
    wiped: Given = "an emptied Redis"
    return [
        *_publishing(),
        *_around("reap_running", "relay", f"{reaping}:reap_running", given="a dead worker's claim", attempt=2),
        *_around("epoch", "relay", f"{broker}.epoch", given=lost),
        *_around("find_lease_expired", "relay", f"{reaping}:find_lease_expired", given=lost),
        *_around("read_lists", "relay", f"{broker}.read_lists", given=lost),
        *_around("return_missing", "relay", f"{reaping}:return_missing", given=lost),
        *_around("delete_orphans", "relay", f"{broker}.delete_orphans", given=lost),
        *_around("return_missing of another epoch", "relay", f"{reaping}:return_missing", given=wiped),
        *_around("renew_found", "relay", f"{reaping}:renew_found", given="a long backlog"),
        *_around("prune", "relay", "shared.outbox.pruning:prune", given="old history"),
        *_expiring(),
    ]


def _expiring() -> list[Point]:
    sql = "outbox_relay.loop.maintenance.expiry_statements"
    old: dict[str, Any] = {"given": "accounts that were not verified in time"}
    return [
        *_around("lock_accounts", "relay", f"{sql}:lock_accounts", **old),
        *_around("lock_refused_mails", "relay", f"{sql}:lock_refused_mails", **old),
        *_around("delete_accounts", "relay", f"{sql}:delete_accounts", **old),
        *_around("the expiry's COMMIT", "relay", COMMIT, past=f"{sql}:delete_accounts", **old),
    ]


def _working_on(program: Program, **whose: Any) -> list[Point]:
    """Return the crash points of both worker classes, from the claim to the outcome's COMMIT."""
    sql, breaker = "shared.outbox.claiming.claims", "shared.outbox.destinations.breaker"
    prepare = "consumer.tasks.verify_email:TASK.prepare"
    refusing, renewals = "a refusing mail server", "shared.outbox.claiming.renewals"
    sent: dict[str, Any] = {**whose, "attempt": 2}
    taken: dict[str, Any] = {**sent, "mails": (2,)}
    again: dict[str, Any] = {**sent, "given": "a message that came back"}
    unwanted: dict[str, Any] = {**sent, "given": "an address that is verified already", "mails": (0,)}
    unreachable: dict[str, Any] = {**sent, "given": "an unreachable mail server"}
    probing: dict[str, Any] = {**taken, "given": "an open breaker"}
    limited: dict[str, Any] = {**sent, "given": "a limited mail server"}
    admit = "shared.outbox.destinations.limits:admit"
    dot: dict[str, Any] = {"function": "smtplib:SMTP.send", "that": _is_the_last_dot}
    return [
        *_around("claim", program, f"{sql}:claim", **whose),
        Point("the claim's COMMIT", program, COMMIT, "before", past=f"{sql}:claim", **whose),
        Point("the claim's COMMIT", program, COMMIT, "after", past=f"{sql}:claim", **sent),
        *_around("read_destinations", program, "shared.outbox.destinations.states:read_destinations", **sent),
        *_around("the verification record", program, prepare, **sent),
        *_around("the verification record's COMMIT", program, COMMIT, past=prepare, **sent),
        *_around("the verification record of a message that came back", program, prepare, **again),
        *_around("admit", program, admit, **limited),
        *_around("admit's COMMIT", program, COMMIT, past=admit, **limited),
        Point("send", program, "consumer.mail.client:Mailer.send", "before", **sent),
        Point("MAIL FROM", program, "smtplib:SMTP.mail", "after", **sent),
        Point("RCPT TO", program, "smtplib:SMTP.rcpt", "after", **sent),
        Point("DATA", program, "smtplib:SMTP.docmd", "after", that=_asks_for_data, **sent),
        Point("the last dot", program, when="before", **dot, **sent),
        Point("the last dot", program, when="after", **dot, **{**sent, "mails": (1, 2)}),
        Point("the mail server's answer", program, "consumer.mail.client:Mailer.send", "after", **taken),
        *_around(
            "the renewal's COMMIT",
            program,
            COMMIT,
            past=f"{renewals}:renew_claim",
            given=_LATE_ANSWER,
            **sent,
        ),
        *_around("ack", program, f"{sql}:ack", **taken),
        Point("ack's COMMIT", program, COMMIT, "before", past=f"{sql}:ack", **taken),
        Point("ack's COMMIT", program, COMMIT, "after", past=f"{sql}:ack", **whose),
        *_around("close_breaker", program, f"{breaker}:close_breaker", **probing),
        *_around("release_probe", program, f"{breaker}:release_probe", **{**taken, "given": _PROBE_WITHOUT_ANSWER}),
        *_around("discard_claims", program, f"{sql}:discard_claims", **unwanted),
        Point("discard_claims' COMMIT", program, COMMIT, "before", past=f"{sql}:discard_claims", **unwanted),
        Point(
            "discard_claims' COMMIT",
            program,
            COMMIT,
            "after",
            past=f"{sql}:discard_claims",
            **{**unwanted, "attempt": 1},
        ),
        *_tasks(program, sent, whose),
        *_around("fail", program, f"{sql}:fail", given=refusing, **sent),
        *_around("fail's COMMIT", program, COMMIT, past=f"{sql}:fail", given=refusing, **sent),
        *_around("release", program, "shared.outbox.claiming.releases:release", **unreachable),
        *_around("open_breaker", program, f"{breaker}:open_breaker", **unreachable),
        Point("release's COMMIT", program, COMMIT, "before", past=f"{breaker}:open_breaker", **unreachable),
        Point(
            "release's COMMIT",
            program,
            COMMIT,
            "after",
            past=f"{breaker}:open_breaker",
            **{**unreachable, "attempt": 1},
        ),
    ]


def _tasks(program: Program, sent: dict[str, Any], whose: dict[str, Any]) -> list[Point]:
    """Return the crash points of work that is no mail."""
    sql, follow_ups = "shared.outbox.claiming.claims", "shared.outbox.claiming.follow_ups:append_follow_ups"
    done: dict[str, Any] = {"given": "a message that is done in its transaction", "mails": (0,)}
    handled: dict[str, Any] = {"given": "a message with a handler", "mails": (0,)}
    webhook: dict[str, Any] = {"given": "a message for a webhook endpoint"}
    post = "consumer.webhooks.client:WebhookClient.post"
    return [
        Point("a webhook's request", program, post, "before", **webhook, **sent),
        Point("an endpoint's answer", program, post, "after", **webhook, **{**sent, "mails": (2,)}),
        *_around("an effect", program, "tests.crash.effects:TASKS.0.prepare", **done, **sent),
        *_around("ack_in", program, f"{sql}:ack_in", **done, **sent),
        Point("ack_in's COMMIT", program, COMMIT, "before", past=f"{sql}:ack_in", **done, **sent),
        Point("ack_in's COMMIT", program, COMMIT, "after", past=f"{sql}:ack_in", **done, **whose),
        *_around("a handler", program, "tests.crash.effects:TASKS.1.handle", **handled, **sent),
        *_around("the append of a handler", program, follow_ups, **handled, **sent),
        Point("the append's COMMIT", program, COMMIT, "before", past=follow_ups, **handled, **sent),
        Point("the append's COMMIT", program, COMMIT, "after", past=follow_ups, **handled, **whose),
    ]


def _outbox_worker_points() -> list[Point]:
    broker, renewal = "consumer.threaded.queue:WorkerBroker", "shared.outbox.claiming.renewals:renew_claims"
    handled: dict[str, Any] = {"given": "a message with a handler", "mails": (0,), "attempt": 2}
    return [
        *_around("renew_claims", "OutboxWorker", renewal, **handled),
        *_around("the COMMIT of renew_claims", "OutboxWorker", COMMIT, past=renewal, **handled),
        Point("the pop", "OutboxWorker", f"{broker}.pop", "after", that=_brings_something),
        Point("the work", "OutboxWorker", "consumer.stages.claim:Claimer.claim", "before"),
        *_working_on("OutboxWorker"),
        *_around("finish", "OutboxWorker", f"{broker}.finish"),
    ]


POP_TO_START: Final = (
    Point("the pop", "stock worker", "rq.queue:Queue.lpop", "after", that=_brings_something),
    Point("the look-up of the job", "stock worker", "rq.queue:Queue._fetch_dequeued_job", "after"),
    *_around("prepare_execution", "stock worker", "rq.worker:Worker.prepare_execution"),
    Point(
        "prepare_job_execution",
        "stock worker",
        "rq.worker:Worker.prepare_job_execution",
        "before",
        whose="horse and parent",
    ),
)
"""The crash points at which RQ's stock worker loses a job without a trace."""


def _stock_worker_points() -> list[Point]:
    both: dict[str, Any] = {"whose": "horse and parent"}
    shared = _working_on("stock worker", **both)
    worker, jobs = "rq.worker:Worker", "consumer.jobs"
    alone = {
        "before claim",
        "before the claim's COMMIT",
        "after the claim's COMMIT",
        "before the last dot",
        "after the mail server's answer",
        "after ack's COMMIT",
    }
    return [
        *POP_TO_START,
        Point("the fork", "stock worker", f"{worker}.fork_work_horse", "after"),
        Point("prepare_job_execution", "stock worker", f"{worker}.prepare_job_execution", "after", **both),
        Point("run_message", "stock worker", f"{jobs}:run_message", "before", **both),
        *_around(
            "release_unclaimed",
            "stock worker",
            "shared.outbox.claiming.releases:release_unclaimed",
            given="a missing setting",
            **both,
        ),
        *shared,
        *[replace(point, whose="horse") for point in shared if f"{point.when} {point.name}" in alone],
        *_around("handle_job_success", "stock worker", f"{worker}.handle_job_success", **both),
    ]


def _short(points: Collection[Point]) -> Iterator[str]:
    """Yield the keys of one point for each function that a process calls, and only once for both worker classes.

    A process that dies before a call leaves what it leaves after the call before.
    """
    died_after = {(point.program, point.name, point.whose) for point in points if point.when == "after"}
    in_one_process = {(point.name, point.function) for point in points if point.program == "OutboxWorker"}
    for point in points:
        is_repeated = point.whose == "horse and parent" and (point.name, point.function) in in_one_process
        is_followed = point.when == "before" and (point.program, point.name, point.whose) in died_after
        if not is_repeated and not is_followed:
            yield point.key


POINTS: Final = {point.key: point for point in chain(_relay_points(), _outbox_worker_points(), _stock_worker_points())}

SHORT: Final = frozenset(_short(POINTS.values()))
"""The points of `make test`."""
