"""Messages are taken from every source in turn, as a relay takes them."""

from typing import Any

from psycopg import Connection

from shared.outbox import publishing
from shared.outbox.discovery import NO_DESTINATION
from shared.outbox.messages import MAIL, QUEUES, JobRef
from shared.outbox.publishing import from_start


def take_jobs(connection: Connection[Any], size: int) -> list[JobRef]:
    """Lock up to `size` due messages of each source: critical before default, the oldest first."""
    wanted = [from_start(queue, name, size) for queue in QUEUES for name in (NO_DESTINATION, MAIL)]
    return [job for part in publishing.take_batch(connection, wanted) for job in part.jobs][:size]
