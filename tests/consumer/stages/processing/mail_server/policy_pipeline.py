"""A relay, a consumer and a mail server that refuses some recipients by policy, one step at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from consumer.model.results import Disposition
from consumer.stages.processor import Processor
from embedded.programs.ports import LOOPBACK
from shared.database.connections import transaction
from shared.outbox.publishing import mark_probe, take_probe
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import WELCOME, World
from tests.rows import add_message, add_user
from tests.servers.scripted_mail_server import ScriptedMailServer, Session

DENIED = "554 5.7.1 Relay access denied"


class Pipeline:
    """A relay and a consumer that run one step at a time, and a mail server that refuses some recipients."""

    def __init__(self, world: World, server: ScriptedMailServer, consumer: Processor, refused: set[str]) -> None:
        self.world = world
        self.server = server
        self.consumer = consumer
        self.refused = refused

    def sign_up(self, address: str, queue: str = "default", max_retries: int = 10) -> int:
        name = address.replace("@", "_at_").replace(".", "_")
        if not self.world.rows("SELECT 1 FROM users WHERE username = %s", [name]):
            add_user(self.world.connection, name, email=address)
        return add_message(self.world.connection, WELCOME, {"username": name}, queue, max_retries=max_retries)

    def work(self, message_id: int) -> Disposition:
        return self.consumer.process(message_id)

    def probe(self) -> int | None:
        """Take a probe as a relay does and process it. Return its message, or None if none is due."""
        connection = self.world.connection
        with transaction(connection):
            connection.execute("UPDATE outbox_destinations SET probe_at = now() WHERE opened_at IS NOT NULL")
            probes = take_probe(connection)
            mark_probe(connection, probes, 60)
        for _, row in probes:
            self.work(row.id)
            return row.id
        return None

    def run(self, most: int) -> None:
        """Process pending messages, without waiting, until there are none or `most` were processed."""
        for _ in range(most):
            pending = self.world.rows("SELECT id FROM outbox WHERE status = 'pending' ORDER BY due_at, id")
            if not pending:
                return
            if self.is_outage:
                self.world.connection.execute(
                    "UPDATE outbox SET due_at = least(due_at, now()) WHERE status = 'pending'"
                )
                assert self.probe() is not None
            else:
                self.world.make_due(pending[0]["id"])
                self.work(pending[0]["id"])
        raise AssertionError(f"{pending} are pending after {most} steps")

    @property
    def is_outage(self) -> bool:
        return self.world.breaker()["opened_at"] is not None

    def states(self, ids: list[int]) -> list[tuple[str, int]]:
        return [(row["status"], row["attempt"]) for row in map(self.world.message, ids)]


@contextmanager
def pipeline_of(world: World, refused: set[str], answer: Callable[[str], str] = lambda _: DENIED) -> Iterator[Pipeline]:
    def rcpt(session: Session) -> str:
        _, _, domain = session.recipient.partition("@")
        is_refused = session.recipient in refused or domain in refused or "everybody" in refused
        return answer(session.recipient) if is_refused else "250 OK"

    with ScriptedMailServer({"RCPT": rcpt}) as server:
        consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, server.port), backoff_scale=0.0)
        yield Pipeline(world, server, consumer, refused)
