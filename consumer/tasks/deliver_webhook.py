"""The task that sends an event to a webhook endpoint."""

import random
from collections.abc import Mapping
from typing import Final

from consumer.model.webhook import WebhookEndpoint
from consumer.task import Context, Discarded, Task, Undeliverable, Webhook
from shared.outbox.columns import LARGEST_ID
from shared.outbox.messages import DeliverWebhook
from shared.webhooks.deliveries import Target, read_targets
from shared.webhooks.events import webhook_destination

_PAUSES: Final = (5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 64_800, 79_200, 86_400, 86_400)
"""The seconds between the attempts: together five days."""

_RANDOM: Final = random.SystemRandom()

_REMOVED: Final = Discarded("the endpoint was removed")


def prepare(context: Context, messages: Mapping[int, DeliverWebhook]) -> dict[int, Webhook | Discarded | Undeliverable]:
    """Return the webhook of each message, with the URL and the secrets that its endpoint has now."""
    endpoint_ids = {id_: each.endpoint_id for id_, each in messages.items() if 0 < each.endpoint_id <= LARGEST_ID}
    targets = read_targets(context.connection, endpoint_ids)
    return {
        id_: _webhook(targets[id_], message.body) if id_ in targets else _REMOVED for id_, message in messages.items()
    }


def _webhook(target: Target, body: str) -> Webhook | Undeliverable:
    if target.destination != webhook_destination(target.endpoint_id):
        # Pauses and limits of the endpoint would not count for it.
        return Undeliverable(f"its destination has to be {webhook_destination(target.endpoint_id)}")
    endpoint = WebhookEndpoint(target.endpoint_id, target.enabled_at, target.is_long_unavailable)
    return Webhook(target.url, body, target.secrets, endpoint=endpoint)


def backoff(attempt: int) -> float:
    """Return the seconds before the next attempt, and up to a tenth more: events that failed together spread out."""
    return _PAUSES[min(attempt, len(_PAUSES)) - 1] * _RANDOM.uniform(1.0, 1.1)


TASK: Final = Task(DeliverWebhook, prepare=prepare, max_retries=len(_PAUSES), backoff=backoff)
