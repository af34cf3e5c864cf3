"""A webhook that a task asks for, before it is signed."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """The endpoint of this service's own webhooks, as it was when the message was prepared.

    Attributes:
        id: its id.
        enabled_at: when it was enabled. What a request finds out counts only if it was not enabled again meanwhile.
        is_long_unavailable: it has been unavailable for so long that one more failure disables it.

    """

    id: int
    enabled_at: datetime
    is_long_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Webhook:
    """A signed POST request, as Standard Webhooks defines it. The message's uid is its webhook-id.

    Attributes:
        url: where to; https, or http to a network of WEBHOOK_ALLOWED_NETWORKS.
        body: the content: JSON text.
        secrets: what signs it: `whsec_` and base64. Several during a rotation.
        endpoint: the endpoint, for this service's own webhooks.

    """

    url: str = field(repr=False)
    body: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    endpoint: WebhookEndpoint | None = field(default=None, kw_only=True)
