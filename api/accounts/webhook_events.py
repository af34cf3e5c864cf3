"""The webhook messages of an account's events, as a part of the statement that writes the account."""

from typing import Any, Final

from sqlalchemy import CTE, BigInteger, ColumnElement, FromClause, Text, cast, func, literal_column, or_, select, true

from api.tables import webhook_endpoints
from shared.outbox.appending import append_for_each
from shared.outbox.messages import DeliverWebhook
from shared.webhooks.events import DESTINATION_PREFIX, EVENTS

ACCOUNT_FIELDS: Final = ("username", "email", "full_name", "created_at")
"""The columns of the account that an event has."""

_TIME_FORMAT: Final = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def event_messages(accounts: FromClause, event: str) -> CTE:
    """Return the CTE that appends the event of each account: one message for each endpoint that gets it.

    The event is frozen here, so that each attempt sends the same. An endpoint that is removed meanwhile is not waited
    for: the worker discards the message of one that does not exist.

    Args:
        accounts: has ACCOUNT_FIELDS.
        event: one of EVENTS.

    """
    endpoint = webhook_endpoints.c
    gets_it = endpoint.events.contains(literal_column(f"ARRAY[{_literal(event)}]"))
    goes_on = or_(endpoint.fan_out_until.is_(None), endpoint.fan_out_until > func.now())
    events = (
        select(
            endpoint.id.label("endpoint_id"),
            cast(_body(accounts, event), Text).label("body"),
            literal_column(f"'{DESTINATION_PREFIX}'", Text()).concat(cast(endpoint.id, Text)).label("destination"),
        )
        .select_from(accounts.join(webhook_endpoints, true()))
        .where(gets_it, goes_on)
        .subquery("event")
    )
    payload = {"endpoint_id": cast(events.c.endpoint_id, BigInteger), "body": events.c.body}
    return append_for_each(events, DeliverWebhook, payload, destination=events.c.destination).cte("event_messages")


def _body(accounts: FromClause, event: str) -> ColumnElement[object]:
    """Return the event as JSON, whose keys keep this order."""
    values = {name: _time(accounts.c[name]) if name == "created_at" else accounts.c[name] for name in ACCOUNT_FIELDS}
    data = func.json_build_object(*(part for name, value in values.items() for part in (_name(name), value)))
    parts = {"type": literal_column(_literal(event), Text()), "timestamp": _time(func.now()), "data": data}
    return func.json_build_object(*(part for name, value in parts.items() for part in (_name(name), value)))


def _time(moment: ColumnElement[Any]) -> ColumnElement[str]:
    return func.to_char(func.timezone(literal_column("'UTC'"), moment), literal_column(_TIME_FORMAT))


def _name(name: str) -> ColumnElement[str]:
    return literal_column(f"'{name}'", Text())


def _literal(event: str) -> str:
    if event not in EVENTS:
        raise ValueError(f"not an event: {event!r}")
    return f"'{event}'"
