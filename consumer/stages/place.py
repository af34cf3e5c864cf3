"""A place: carries out one unit of work after the other. A worker has as many as it has senders."""

from consumer.model.message import MessagesToPrepare, MessageToHandle, PreparedMessage, Work
from consumer.model.results import StepResult
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.handle import Handler
from consumer.stages.preparing.attempts import PrepareAttempts
from consumer.stages.preparing.task_calls import TaskCalls
from consumer.stages.send import Sender
from consumer.task.registry import TaskRegistry
from shared.settings.consumer import ConsumerSettings


class Place:
    """Prepares, sends or handles, for one thread."""

    def __init__(
        self,
        settings: ConsumerSettings,
        tasks: TaskRegistry,
        policy: RetryPolicy,
        sender: Sender,
        handler: Handler,
        *,
        database: Database | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: the consumer's settings.
            tasks: the tasks that this consumer knows.
            policy: how to wait while PostgreSQL is unavailable.
            sender: sends what is prepared.
            handler: calls handlers.
            database: the connection for work that is prepared here; by default one of the place's own.

        """
        self._database = database or Database(settings.database_url)
        self._attempts = PrepareAttempts(self._database, policy, TaskCalls(settings, tasks).prepare)
        self._sender = sender
        self._handler = handler

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the send or the transaction in progress started. A handler has a limit of its own."""
        times = [each for each in (self._sender.busy_since, self._database.busy_since) if each is not None]
        return min(times, default=None)

    def carry_out(self, work: Work) -> StepResult:
        """Carry it out, and return the results, or what is to be sent now."""
        match work:
            case PreparedMessage():
                return StepResult(results=[self._sender.send(work)])
            case MessageToHandle():
                return self._handler.handle(work)
            case MessagesToPrepare():
                return self._attempts.run(work.messages)

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()
        self._database.close()
