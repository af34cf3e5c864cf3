"""The other threads of an OutboxWorker: those that send, and the one that writes what came of it."""

import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final

import structlog
from redis.exceptions import RedisError

from consumer.broker import WorkerBroker
from consumer.control import Control
from consumer.database import Database
from consumer.held import Ended, Ready
from consumer.patience import Patience, pauses
from consumer.recording import Recorder, Settled
from consumer.sending import Sender
from consumer.verdicts import Verdict, tell

_log = structlog.get_logger(__name__)

_WRITTEN_AT_ONCE: Final = 100


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
        """Send. Sender.send catches what goes wrong with a mail."""
        while (ready := self._to_send.get()) is not None:
            self._to_write.put(self._sender.send(ready))
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
        """Keep what the loop needs."""
        super().__init__(name="writer", daemon=True)
        self._recorder = recorder
        self._database = database
        self._broker = broker
        self._control = control
        self._patience = patience
        self._to_write = to_write

    @property
    def busy_since(self) -> float | None:
        """Since when (monotonic) outcomes are written; None between two times, and while PostgreSQL is away."""
        return self._database.busy_since

    def run(self) -> None:
        """Write until there is no more, and what PostgreSQL did not hear again and again."""
        for batch in self._batches():
            self._settle(self._recorder.record(batch))
            for pause in pauses():
                # New outcomes come in between: one that PostgreSQL refuses holds up nobody else.
                if not self._recorder.is_waiting or not self._to_write.empty():
                    break
                if self._patience.may_give_up():
                    self._settle(self._recorder.give_up())
                    break
                self._patience.sleep(pause)
                self._settle(self._recorder.record([]))
        self._settle(self._recorder.give_up())
        self._database.close()

    def _batches(self) -> Iterator[list[Ended]]:
        """Give what is there, at least one outcome each time."""
        while (first := self._to_write.get()) is not None:
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
            yield batch

    def _settle(self, settled: Sequence[Settled]) -> None:
        """Say what became of each message, tidy its job up, and make room for others."""
        if not settled:
            return
        self._control.settled(len(settled))
        for each in settled:
            tell(each.ended.held.claim.id, each.verdict, each.ended.held, each.ended.reason)
        jobs = [(each.ended.held.job, each.verdict is Verdict.DONE) for each in settled]
        done = [job for job, is_done in jobs if job is not None and is_done]
        others = [job for job, is_done in jobs if job is not None and not is_done]
        try:
            self._broker.finish(done, others)
        except (RedisError, OSError) as exc:
            self._control.note_redis(type(exc).__name__)
