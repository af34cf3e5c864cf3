"""Many messages at once: what one of them meets is not what its neighbours pay for."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from email.headerregistry import Address
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from consumer.broker import WorkerBroker
from consumer.claiming import Claimed, Claimer
from consumer.control import Control
from consumer.database import Database
from consumer.held import Ended, Held, Ready
from consumer.intake import Intake
from consumer.lease import Lease
from consumer.outcomes import Accepted, Failed, NotBegun, NotMade, Outage, Outcome
from consumer.patience import Patience
from consumer.preparing import Preparer
from consumer.recording import Recorder
from consumer.registry import TASKS
from consumer.rq_jobs import PoppedJob
from consumer.sending import Sender
from consumer.stations import SendingThread, WritingThread
from consumer.task import Mail, Payload, Preparation, Prepared, Task, UndeliverableError, UserPayload
from consumer.verdicts import Verdict
from embedded.redis import RedisServer
from shared.database import DbConnection, connect
from shared.messages import ENTRY_POINT, SendVerifyEmail, SendWelcomeEmail
from shared.settings import ConsumerSettings, SmtpServer
from tests.rows import add_message, add_user, message
from tests.waiting import wait_until

VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task
LEASE = 30.0


class Desk:
    """What an OutboxWorker's threads use, without the threads."""

    def __init__(self, database_url: str) -> None:
        self.url = database_url
        self.database = Database(database_url)
        self.settings = settings = ConsumerSettings(
            database_url=database_url,
            redis_url="redis://localhost:1/0",
            smtp_server=SmtpServer("smtp", "localhost", 1),
            smtp_timeout_seconds=5.0,
            mail_from=Address("Signup", addr_spec="signup@example.org"),
            base_url="https://example.org",
            secret_keys=("k" * 32,),
            verify_email_minutes=60.0,
            run_lease_seconds=LEASE,
            backoff_scale=1.0,
            concurrency=10,
        )
        patience = Patience(sleep=lambda _seconds: None)
        self.claimer = Claimer(self.database, LEASE, patience)
        self.preparer = Preparer(self.database, settings, patience)
        self.recorder = Recorder(self.database, 1.0)

    def claim(self, ids: Sequence[int]) -> Claimed:
        return self.claimer.claim(dict.fromkeys(ids))

    def hold(self, ids: Sequence[int]) -> list[Held]:
        return sorted(self.claim(ids).held, key=lambda held: ids.index(held.claim.id))

    def record(self, *ended: tuple[Held, Outcome]) -> dict[int, Verdict]:
        settled = self.recorder.record([Ended(held, outcome) for held, outcome in ended])
        return {each.ended.held.claim.id: each.verdict for each in settled}


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    opened = Desk(database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def connection(database_url: str) -> Iterator["Connection[Any]"]:
    with connect(database_url, "test") as opened:
        add_user(opened)
        yield opened


def add_messages(connection: "Connection[Any]", count: int, task: str = VERIFY) -> list[int]:
    return [add_message(connection, task, status="published") for _ in range(count)]


def register(monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Preparation, Mapping[int, Payload]], Prepared]) -> str:
    monkeypatch.setitem(TASKS, "task:test", Task("task:test", UserPayload(), prepare))
    return "task:test"


def held_ids(claimed: Claimed) -> set[int]:
    return {held.claim.id for held in claimed.held}


# ---- claims


def test_only_those_that_can_be_claimed_become_ours(desk: Desk, connection: "Connection[Any]") -> None:
    ours = add_messages(connection, 3)
    others = [add_message(connection, status="running"), add_message(connection, due_at="2100-01-01T00:00:00Z"), 10**6]

    claimed = desk.claim([*ours, *others])

    assert held_ids(claimed) == set(ours)
    assert {(each.message_id, each.verdict) for each in claimed.not_held} == {
        (other, Verdict.NOT_CLAIMED) for other in others
    }
    assert [message(connection, id_)["attempt"] for id_ in ours] == [1, 1, 1]


def test_two_workers_that_are_told_of_the_same_messages_share_them(
    desk: Desk, database_url: str, connection: "Connection[Any]"
) -> None:
    ids = add_messages(connection, 40)
    desks = [desk, Desk(database_url)]
    together = threading.Barrier(2)

    def claim(number: int) -> Claimed:
        together.wait()
        return desks[number].claim(ids if number else ids[::-1])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(claim, range(2))
    desks[1].database.close()

    assert held_ids(first) | held_ids(second) == set(ids)
    assert held_ids(first) & held_ids(second) == set()
    assert {message(connection, id_)["attempt"] for id_ in ids} == {1}


@contextmanager
def locked(database_url: str, statement: str, *values: object) -> Iterator[None]:
    """Hold rows as a human does who leaves a session open."""
    with connect(database_url, "a human") as human:
        human.execute("BEGIN")
        human.execute(statement, values)
        yield
        human.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.database._BEGIN", "BEGIN; SET LOCAL lock_timeout = '%d00ms'")


@pytest.mark.usefixtures("impatient")
def test_a_row_that_stays_locked_does_not_keep_the_others_waiting(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 4)

    with locked(desk.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        claimed = desk.claim(ids)

    assert held_ids(claimed) == {ids[0], ids[2], ids[3]}
    [left] = claimed.not_held
    assert (left.message_id, left.verdict) == (ids[1], Verdict.NOT_CLAIMED)
    assert message(connection, ids[1])["status"] == "published"


class LosesTheFirstAnswer(Database):
    """The first commit arrives and its answer does not; from then on something is wrong with the table."""

    def __init__(self, database_url: str, then: Callable[[], object]) -> None:
        super().__init__(database_url)
        self._then: Callable[[], object] | None = then

    @contextmanager
    def transaction(self, **limits: int) -> Iterator[DbConnection]:
        with super().transaction(**limits) as connection:
            yield connection
        if self._then is not None:
            self._then()
            self._then = None
            self.close()
            raise psycopg.OperationalError


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", ["LOCK TABLE outbox", "ALTER TABLE outbox RENAME TO elsewhere; COMMIT; BEGIN"])
def test_claims_in_doubt_are_let_go_when_their_lease_is_over(
    desk: Desk, connection: "Connection[Any]", trouble: str
) -> None:
    ids = add_messages(connection, 2)
    with connect(desk.url, "a human") as human:
        human.execute("BEGIN")
        database = LosesTheFirstAnswer(desk.url, lambda: human.execute(trouble))
        lease = Lease.start(1.0)
        claimed = Claimer(database, lease.seconds, Patience()).claim(dict.fromkeys(ids))

    assert (claimed.held, lease.is_over()) == ([], True)
    assert {each.verdict for each in claimed.not_held} == {Verdict.DATABASE_AWAY}


@pytest.mark.usefixtures("impatient")
def test_a_table_that_stays_locked_is_postgresql_s_outage(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 2)
    with locked(desk.url, "LOCK TABLE outbox"):
        claimed = Claimer(desk.database, 0.3, Patience()).claim(dict.fromkeys(ids))

    assert {(each.verdict, each.reason) for each in claimed.not_held} == {(Verdict.DATABASE_AWAY, "LockNotAvailable")}


def test_a_time_that_python_does_not_know_is_no_obstacle(desk: Desk, connection: "Connection[Any]") -> None:
    ids = [add_message(connection), add_message(connection, due_at="-infinity")]

    assert held_ids(desk.claim(ids)) == set(ids)


def test_a_row_that_cannot_be_claimed_does_not_spoil_the_others(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    connection.execute(f"ALTER TABLE outbox ADD CHECK (id <> {ids[1]} OR status <> 'running')")

    claimed = desk.claim(ids)

    assert held_ids(claimed) == {ids[0], ids[2]}
    assert [(each.message_id, each.reason) for each in claimed.not_held] == [(ids[1], "CheckViolation")]


def test_a_standby_is_no_postgresql_to_work_with(desk: Desk) -> None:
    assert desk.database.answers()
    desk.database.close()
    standby = Database(f"{desk.url}?options=-c%20default_transaction_read_only%3Don")

    assert not standby.answers()
    standby.close()


# ---- jobs


def test_a_job_that_has_to_be_read_is_kept_while_redis_is_away(
    desk: Desk, connection: "Connection[Any]", own_redis: RedisServer
) -> None:
    [id_] = add_messages(connection, 1)

    class FreezesAfterThePop(WorkerBroker):
        def pop(self, most: int, *, last_queue_first: bool = False) -> list[PoppedJob]:
            popped = super().pop(most, last_queue_first=last_queue_first)
            os.kill(own_redis.pid, signal.SIGSTOP)
            return popped

    control = Control(at_once=1, max_jobs=1)
    to_send: SimpleQueue[Ready | None] = SimpleQueue()
    with closing(Redis.from_url(own_redis.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))) as redis:
        queue = Queue("q", connection=redis)
        queue.enqueue(ENTRY_POINT, id_)
        broker = FreezesAfterThePop(redis, [queue.key], "rq:job:", "worker")
        intake = Intake(
            broker,
            control,
            desk.database,
            desk.claimer,
            desk.preparer,
            burst=False,
            to_send=to_send,
            to_write=SimpleQueue(),
        )
        intake.start()
        wait_until(lambda: control.redis_is_away or not intake.is_alive(), 10, "the outage to be noticed")
        os.kill(own_redis.pid, signal.SIGCONT)
        intake.join(10)

    ready = to_send.get_nowait()
    assert ready is not None
    assert ready.held.claim.id == id_


# ---- mails


def test_mails_of_several_tasks_are_made_together(desk: Desk, connection: "Connection[Any]") -> None:
    ids = [*add_messages(connection, 3), *add_messages(connection, 2, WELCOME)]

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert {ready.held.claim.id: ready.mail.template for ready in prepared.ready} == {
        **dict.fromkeys(ids[:3], "verify_email"),
        **dict.fromkeys(ids[3:], "welcome_email"),
    }
    links = {ready.mail.values["link"] for ready in prepared.ready if "link" in ready.mail.values}
    assert len(links) == 3


def test_a_message_without_a_user_ends_alone(desk: Desk, connection: "Connection[Any]") -> None:
    good = add_messages(connection, 2)
    bad = add_message(connection, payload={"username": "nobody"})

    prepared = desk.preparer.prepare(desk.hold([*good, bad]))

    assert [ready.held.claim.id for ready in prepared.ready] == good
    [ended] = prepared.ended
    assert (ended.held.claim.id, ended.outcome) == (
        bad,
        NotMade("the user that the payload names does not exist (any more)", is_permanent=True),
    )


def test_a_task_that_raises_at_one_message_is_called_for_each_alone(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    poison: list[int] = []

    def prepare(preparation: Preparation, payloads: Mapping[int, Payload]) -> Prepared:
        calls.append(list(payloads))
        preparation.connection.execute("UPDATE users SET full_name = full_name || '!'")
        if poison[0] in payloads:
            raise ZeroDivisionError
        return {id_: Mail("a@example.com", "A", "S", "welcome_email", {"username": "a"}) for id_ in payloads}

    ids = add_messages(connection, 3, register(monkeypatch, prepare))
    poison.append(ids[1])

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert calls == [ids, [ids[0]], [ids[1]], [ids[2]]]
    assert [ready.held.claim.id for ready in prepared.ready] == [ids[0], ids[2]]
    assert [ended.outcome for ended in prepared.ended] == [NotMade("ZeroDivisionError while the mail was prepared")]
    assert connection.execute("SELECT full_name FROM users").fetchone() == ("Full name of alice!!",)


def test_a_task_that_forgets_a_message_has_failed_at_it(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_messages(connection, 1, register(monkeypatch, lambda _preparation, _payloads: {}))

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert [ended.outcome for ended in prepared.ended] == [NotMade("its task made no mail")]


@pytest.mark.usefixtures("impatient")
def test_a_mail_whose_user_stays_locked_is_put_back_for_a_while(desk: Desk, connection: "Connection[Any]") -> None:
    add_user(connection, "bob")
    good, bad = add_message(connection), add_message(connection, payload={"username": "bob"})

    with locked(desk.url, "UPDATE users SET username = 'robert' WHERE username = %s", "bob"):
        prepared = desk.preparer.prepare(desk.hold([good, bad]))
    [ended] = prepared.ended
    verdicts = desk.recorder.record([ended])

    assert [ready.held.claim.id for ready in prepared.ready] == [good]
    assert [each.verdict for each in verdicts] == [Verdict.PUT_BACK]
    row = message(connection, bad)
    waits = connection.execute("SELECT due_at > now() + interval '30 s' FROM outbox WHERE id = %s", [bad]).fetchone()
    assert (row["status"], row["attempt"], waits) == ("pending", 0, (True,))


# ---- outcomes


def test_outcomes_of_every_kind_are_written_together(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 5)
    held = desk.hold(ids)
    outcomes = [Accepted(), Failed("451"), Failed("554", is_permanent=True), NotBegun("away"), Outage("gone")]

    verdicts = desk.record(*zip(held, outcomes, strict=True))

    assert [verdicts[id_] for id_ in ids] == [
        Verdict.DONE,
        Verdict.FAILED,
        Verdict.DEAD,
        Verdict.PUT_BACK,
        Verdict.PUT_BACK,
    ]
    assert [(row["status"], row["attempt"]) for row in (message(connection, id_) for id_ in ids)] == [
        ("done", 1),
        ("pending", 1),
        ("dead", 1),
        ("pending", 0),
        ("pending", 0),
    ]


def test_what_is_not_ours_any_more_is_told_apart_from_what_is(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    held = desk.hold(ids)
    connection.execute("UPDATE outbox SET claim_token = gen_random_uuid() WHERE id = %s", [ids[1]])

    verdicts = desk.record(*((each, Accepted()) for each in held))

    assert [verdicts[id_] for id_ in ids] == [Verdict.DONE, Verdict.NOT_OURS_ANY_MORE, Verdict.DONE]


def test_an_outcome_that_postgresql_refuses_holds_up_no_other(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    first, second, third = desk.hold(ids)
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f"CREATE TRIGGER refuse BEFORE INSERT ON outbox_finished FOR EACH ROW WHEN (NEW.id = {ids[1]})"
        " EXECUTE FUNCTION refuse()"
    )

    verdicts = desk.record((first, Accepted()), (second, Accepted()), (third, Accepted()))

    assert (verdicts, desk.recorder.is_waiting) == ({ids[0]: Verdict.DONE, ids[2]: Verdict.DONE}, True)
    connection.execute("DROP TRIGGER refuse ON outbox_finished")
    assert [each.verdict for each in desk.recorder.retry()] == [Verdict.DONE]
    assert not desk.recorder.is_waiting


@pytest.mark.usefixtures("impatient")
def test_a_row_that_stays_locked_holds_up_no_other_outcome(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    held = desk.hold(ids)

    with locked(desk.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        verdicts = desk.record(*((each, Accepted()) for each in held))
        still_waiting = [*desk.recorder.retry()]
    unlocked = desk.recorder.retry()

    assert verdicts == {ids[0]: Verdict.DONE, ids[2]: Verdict.DONE}
    assert (still_waiting, [each.verdict for each in unlocked]) == ([], [Verdict.DONE])
    assert not desk.recorder.is_waiting


def test_an_outcome_that_is_refused_for_good_is_let_go_when_the_lease_is_over(
    desk: Desk, connection: "Connection[Any]"
) -> None:
    [held] = desk.hold(add_messages(connection, 1))
    unwritable = Ended(held, Failed("\ud800"))

    assert (desk.recorder.record([unwritable]), desk.recorder.is_waiting) == ([], True)
    late = Ended(replace(held, lease=Lease(0.0, 0.0)), Failed("\ud800"))
    assert [each.verdict for each in desk.recorder.record([late])] == [Verdict.DATABASE_AWAY]


def test_a_reason_of_a_task_is_kept_as_far_as_it_can_be(desk: Desk, connection: "Connection[Any]") -> None:
    assert UndeliverableError("a\x00b\ud800c").reason == "a b c"


def test_a_writer_that_has_to_leave_waits_for_postgresql_as_long_as_it_may(
    desk: Desk, connection: "Connection[Any]", redis_url: str
) -> None:
    held = desk.hold(add_messages(connection, 2))
    to_write: SimpleQueue[Ended | None] = SimpleQueue()
    away = Database(desk.url)
    away.transaction = unreachable  # type: ignore[method-assign,assignment]
    pauses: list[float] = []

    def come_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            del away.transaction  # type: ignore[method-assign]

    with closing(Redis.from_url(redis_url)) as redis:
        broker = WorkerBroker(redis, ["q"], "job:", "worker")
        control = Control(at_once=2, max_jobs=None)
        control.took(2)
        writer = WritingThread(Recorder(away, 1.0), away, broker, control, Patience(come_back), to_write)
        for each in (*(Ended(each, Accepted()) for each in held), None):
            to_write.put(each)
        writer.run()

    assert ([message(connection, each.claim.id)["status"] for each in held], len(pauses)) == (["done"] * 2, 3)
    assert not control.is_busy


def test_a_sender_that_meets_a_defect_hands_on_an_outcome_and_goes_on(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = desk.preparer.prepare(desk.hold(add_messages(connection, 2)))
    to_send: SimpleQueue[Ready | None] = SimpleQueue()
    to_write: SimpleQueue[Ended | None] = SimpleQueue()
    monkeypatch.setattr(Sender, "send", lambda _self, _ready: 1 / 0)
    for each in (*prepared.ready, None):
        to_send.put(each)

    SendingThread(0, Sender(desk.settings), to_send, to_write).run()

    ended = [to_write.get(), to_write.get()]
    expected = Failed("ZeroDivisionError while the mail was sent", maybe_accepted=True)
    assert [each and each.outcome for each in ended] == [expected] * 2


@contextmanager
def unreachable(**_limits: int) -> Iterator[None]:
    raise psycopg.OperationalError
    yield


def test_what_could_not_be_written_can_be_let_go(desk: Desk, connection: "Connection[Any]") -> None:
    [held] = desk.hold(add_messages(connection, 1))
    connection.execute("ALTER TABLE outbox_finished RENAME TO elsewhere")

    assert desk.record((held, Accepted())) == {}
    assert [each.verdict for each in desk.recorder.give_up()] == [Verdict.DATABASE_AWAY]
    assert not desk.recorder.is_waiting
