"""The SenderThread of an OutboxWorker: sends one prepared mail after the other."""

import threading
from queue import SimpleQueue

from consumer.model.message import AttemptResult, PreparedMail
from consumer.model.outcomes import Failed
from consumer.stages.send import Sender


class SenderThread(threading.Thread):
    """Sends mails until it takes None from its queue."""

    def __init__(
        self,
        number: int,
        sender: Sender,
        prepared_mails: "SimpleQueue[PreparedMail | None]",
        results: "SimpleQueue[AttemptResult | None]",
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._sender = sender
        self._prepared_mails = prepared_mails
        self._results = results

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the mail in hand was started; None between two mails."""
        return self._sender.busy_since

    def run(self) -> None:
        """Send each mail, and put a result for each into the queue."""
        while (prepared := self._prepared_mails.get()) is not None:
            try:
                result = self._sender.send(prepared)
            except Exception as exc:  # noqa: BLE001 - a bug must not end the thread
                reason = f"{type(exc).__name__} while the mail was sent"
                failure = Failed(reason, maybe_accepted=True, is_unanswered=True)
                result = AttemptResult(prepared.message, failure, prepared.breaker)
            self._results.put(result)
        self._sender.close()
