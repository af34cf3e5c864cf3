"""The other threads of an OutboxWorker: those that send, and the one that writes what came of it."""

import threading
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

import structlog
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from consumer.model.message import Ended, Ready
from consumer.model.outcomes import Failed
from consumer.model.results import Verdict, tell
from consumer.stages.database import Database
from consumer.stages.record import Recorder, Settled
from consumer.stages.retry_policy import Patience, pauses
from consumer.stages.send import Sender
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import Control
from shared.rq_format.read import PoppedJob

_log = structlog.get_logger(__name__)

_WRITTEN_AT_ONCE: Final = 100

_UNTIDIED_KEPT: Final = 10_000
"""More than are in hand when Redis goes away; the limit is for one that gives jobs and refuses to delete them."""


class SendingThread(threading.Thread):
    """Sends one mail after the other until it takes None from its queue."""

    def __init__(
        self, number: int, sender: Sender, to_send: "SimpleQueue[Ready | None]", to_write: "SimpleQueue[Ended | None]"
    ) -> None:
        """Keep what the loop needs."""
        super().__init__(name=f"sender-{number}", daemon=True)
        self._sender = sender
        self._to_send = to_send
        self._to_write = to_write

    @property
    def busy_since(self) -> float | None:
        """Since when (monotonic) a mail is in hand; None between two mails."""
        return self._sender.busy_since

    def run(self) -> None:
        """Send, and never leave a message without an outcome."""
        while (ready := self._to_send.get()) is not None:
            try:
                ended = self._sender.send(ready)
            except Exception as exc:  # noqa: BLE001 - a sender that ends would be missed
                reason = f"{type(exc).__name__} while the mail was sent"
                failure = Failed(reason, maybe_accepted=True, is_unanswered=True)
                ended = Ended(ready.held, failure, ready.breaker)
            self._to_write.put(ended)
        self._sender.close()


class WritingThread(threading.Thread):
    """Writes outcomes until it takes None from its queue: as many in one transaction as are there."""

    def __init__(
        self,
        recorder: Recorder,
        database: Database,
        broker: WorkerBroker,
        control: Control,
        patience: Patience,
        to_write: "SimpleQueue[Ended | None]",
    ) -> None:
        """Keep what the loop needs; the broker's client gives up soon, since outcomes wait behind it."""
        super().__init__(name="writer", daemon=True)
        self._recorder = recorder
        self._database = database
        self._broker = broker
        self._control = control
        self._patience = patience
        self._to_write = to_write
        self._pauses = pauses()
        self._retry_at: float | None = None
        self._untidied: deque[tuple[PoppedJob, Verdict]] = deque(maxlen=_UNTIDIED_KEPT)

    @property
    def busy_since(self) -> float | None:
        """Since when (monotonic) outcomes are written; None between two times, and while PostgreSQL is away."""
        return self._database.busy_since

    def run(self) -> None:
        """Write until there is no more; what PostgreSQL did not take again and again, until it is time to leave."""
        while (batch := self._next_batch()) is not None:
            if batch:
                self._settle(self._recorder.record(batch))
            self._retry_now_and_then()
        for pause in pauses():
            if not self._recorder.is_waiting or self._patience.may_give_up():
                break
            self._patience.sleep(pause)
            self._settle(self._recorder.retry())
        self._settle(self._recorder.give_up())
        self._database.close()

    def _retry_now_and_then(self) -> None:
        """Try what PostgreSQL did not take by a clock of its own: new outcomes do not wait for it."""
        if not self._recorder.is_waiting:
            self._pauses, self._retry_at = pauses(), None
        elif self._retry_at is None:
            self._retry_at = monotonic() + next(self._pauses)
        elif monotonic() >= self._retry_at:
            self._settle(self._recorder.retry())
            self._retry_at = monotonic() + next(self._pauses)

    def _next_batch(self) -> list[Ended] | None:
        """Wait for an outcome, and give it with all the others that are there.

        None when there are no more; nothing when it is time to try again what PostgreSQL did not take.
        """
        try:
            first = self._to_write.get(timeout=self._seconds_to_retry())
        except Empty:
            return []
        if first is None:
            return None
        batch = [first]
        while len(batch) < _WRITTEN_AT_ONCE:
            try:
                another = self._to_write.get_nowait()
            except Empty:
                break
            if another is None:
                self._to_write.put(None)
                break
            batch.append(another)
        return batch

    def _seconds_to_retry(self) -> float | None:
        return None if self._retry_at is None else max(0.0, self._retry_at - monotonic())

    def _settle(self, settled: Sequence[Settled]) -> None:
        """Make room for others, say what became of each message, and tidy its job up."""
        self._control.settled(len(settled))
        try:
            for each in settled:
                tell(each.ended.held.claim.id, each.verdict, each.ended.held, each.ended.reason)
            self._tidy_up(settled)
        except ReadOnlyError as exc:
            self._control.note_redis(self._broker.cause(exc))
        except ResponseError as exc:
            self._control.note_tidying(self._broker.cause(exc))
        except (RedisError, OSError) as exc:
            self._control.note_redis(self._broker.cause(exc))
        except Exception as exc:  # noqa: BLE001 - a writer that ends would be missed
            _log.error("jobs.not_deleted", error=type(exc).__name__)

    def _tidy_up(self, settled: Sequence[Settled]) -> None:
        """Delete the jobs, those of earlier messages too that Redis was not there for. Raises RedisError.

        While it is away it is left alone: the next outcomes come first. A worker that ends before it is back leaves the
        hashes of its last jobs behind, some hundred bytes each: no list names them, so nobody runs them again, but they
        stay, since RQ gives a job's hash an end only when its own class finishes the job.
        """
        self._untidied.extend(
            (each.ended.held.job, each.verdict) for each in settled if each.ended.held.job is not None
        )
        if not self._untidied or self._control.redis_is_away:
            return
        done = [job for job, verdict in self._untidied if verdict is Verdict.DONE]
        others = [job for job, verdict in self._untidied if verdict is not Verdict.DONE]
        self._broker.finish(done, others)
        self._control.note_tidying(None)
        self._untidied.clear()
