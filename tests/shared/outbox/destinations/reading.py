"""What the tests of destinations read of a row."""

from typing import Any, Final

from shared.database.connections import DbConnection
from shared.outbox.destinations.states import DestinationState, read_destinations

MAIL: Final = "mail"
OTHER: Final = "webhook:1"


def state(connection: DbConnection, name: str = OTHER) -> DestinationState:
    return read_destinations(connection, [name])[name]


def row(connection: DbConnection, name: str = OTHER) -> dict[str, Any]:
    [(found,)] = connection.execute("SELECT to_jsonb(d) FROM outbox_destinations AS d WHERE name = %s", [name])
    assert isinstance(found, dict)
    return found
