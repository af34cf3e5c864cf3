"""Run chaos once, from the first process to the result of the checks."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.appending import Appender, Ports
from tests.chaos.checking import history
from tests.chaos.checking.account import Account
from tests.chaos.checking.accounting import settle
from tests.chaos.checking.collecting import copies_of, ids_in_log
from tests.chaos.checking.evidence import Evidence
from tests.chaos.injector import Injector
from tests.chaos.load import Load
from tests.chaos.plan import draw_plan
from tests.chaos.services import DownService, SlowService
from tests.chaos.stack import Stack

ANSWERS_SECONDS: Final = 180.0
"""On a machine that is busy with other things, people queue for their answers long after the last fault."""

QUIET_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be.

    Attributes:
        duration: for so many seconds people sign up and faults happen.
        rate: new signups in a second.
        kinds: the faults that may happen, by name.
        worker_class: own or stock.
        slow_seconds: after how long the slow service answers. Under RQ's stock class, which renews no lease, it answers
            within the run lease.
        parent: where the run makes its folder; None: where temporary files lie.
        keep: leave the logs there even if nothing is wrong.

    """

    seed: int
    duration: float
    rate: float
    kinds: tuple[str, ...]
    worker_class: str
    workers: int = 2
    relays: int = 2
    parent: Path | None = None
    keep: bool = False
    slow_seconds: float = 9.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the checks, and where the logs are: None when they were removed because nothing was wrong."""

    account: Account
    folder: Path | None


def run(options: Options, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Make a run. Whatever happens, no process is left behind.

    Args:
        options: what it is to be.
        say: gets a line about each stage.

    """
    if options.parent is not None:
        options.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.seed}-", dir=options.parent))
    # PostgreSQL's account has to pass through.
    folder.chmod(0o711)
    say(f"logs: {folder}")
    evidence = _gather_evidence(options, folder, say)
    account = settle(evidence)
    if account.wrong or options.keep:
        (folder / "evidence.json").write_text(json.dumps(asdict(evidence), indent=1, default=str))
        return Outcome(account, folder)
    shutil.rmtree(folder)
    return Outcome(account, None)


def _gather_evidence(options: Options, folder: Path, say: Callable[[str], None]) -> Evidence:
    counts = {"relay": options.relays, "worker": options.workers}
    plan = draw_plan(options.seed, options.duration, options.kinds, counts)
    stack = Stack(folder, worker_class=options.worker_class, relays=options.relays, workers=options.workers)
    load = Load(stack.api_url, seed=options.seed, rate=options.rate)
    injector = Injector(stack, plan)
    slow = SlowService(options.slow_seconds if options.worker_class == "own" else min(options.slow_seconds, 2.0))
    down = DownService()
    appender = Appender(stack.database_url, Ports(slow.port, down.port), rate=options.rate)
    try:
        slow.start()
        stack.start()
        say(f"running for {options.duration:g} s with {len(plan)} faults planned")
        injector.start()
        load.start()
        appender.start()
        _run_for(options.duration, stack, injector)
        load.finish()
        appender.finish()
        injector.end()
        say("all faults are over: waiting for the last answers, then for quiet")
        faults_over = time.monotonic()
        _wait_for_answers(stack, load)
        answered = time.monotonic()
        is_quiet = _wait_for_quiet(stack)
        quiet = time.monotonic()
        stack.stop_service()
        return replace(
            _collect(stack, load, injector),
            calls=list(slow.calls),
            seconds_to_answers=answered - faults_over,
            seconds_to_quiet=quiet - faults_over if is_quiet else None,
        )
    finally:
        load.abandon()
        appender.finish()
        injector.abort()
        stack.remove()
        injector.release()
        slow.stop()
        down.stop()


def _run_for(seconds: float, stack: Stack, injector: Injector) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        injector.check()
        stack.supervisor.check()
        time.sleep(_PAUSE_SECONDS)


def _wait_for_answers(stack: Stack, load: Load) -> None:
    """Wait until every user has an answer; users without one in time are part of the evidence."""
    with suppress(TimeoutError):
        stack.wait_until(load.is_done, ANSWERS_SECONDS, "every user to have an answer")
    load.abandon()


def _wait_for_quiet(stack: Stack) -> bool:
    """Return whether all processes run and no message has anything ahead of it, in time."""
    try:
        stack.wait_until(lambda: stack.supervisor.all_running() and stack.is_quiet(), QUIET_SECONDS, "quiet")
    except TimeoutError:
        return False
    return True


def _collect(stack: Stack, load: Load, injector: Injector) -> Evidence:
    with closing(psycopg.connect(stack.database_url, autocommit=True)) as connection:
        changes = history.read_changes(connection)
        users = history.read_users(connection)
        messages = history.read_messages(connection)
        copies = copies_of(stack.mails, history.read_uids(connection))
        jobs = history.read_jobs(connection)
        effects = history.read_effects(connection)
    seen = {change.message_id for change in changes} | ids_in_log(stack.log_file("api"))
    return Evidence(
        signups=load.signups,
        users=users,
        messages=messages,
        seen_ids=seen | {copy.message_id for copy in copies if copy.message_id is not None},
        claims=history.claims_of(changes),
        copies=copies,
        faults=sorted(injector.applied, key=lambda fault: fault.began),
        exits=stack.supervisor.exits,
        seconds_to_answers=0.0,
        seconds_to_quiet=None,
        jobs=jobs,
        effects=effects,
    )
