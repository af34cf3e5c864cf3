"""The names in PostgreSQL of the model's tasks and destinations, which it numbers."""

from shared.outbox.messages import UNKNOWN
from tests.model.destinations.state import NOWHERE, DestinationStep


def task_name(message: int) -> str:
    return f"task:of_message_{message}"


def destination_name(number: int) -> str:
    return f"webhook:{number}"


def name_in(step: DestinationStep) -> str:
    return destination_name("ABC".index(step.what))


def row_name(number: int) -> str | None:
    return None if number == NOWHERE else destination_name(number)


def destination_number(name: str | None) -> int:
    return NOWHERE if name in (None, UNKNOWN) else int(name[-1])
