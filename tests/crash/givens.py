"""What a scene of a crash is prepared with."""

from typing import Literal

Given = Literal[
    "a message",
    "a message that came back",
    "a dead worker's claim",
    "a lost job",
    "a long backlog",
    "an emptied Redis",
    "an address that is verified already",
    "an unreachable mail server",
    "a refusing mail server",
    "a message that met silence and a mail server that does not answer yet",
    "an open breaker",
    "an open breaker and a mail server that does not answer",
    "a limited mail server",
    "old history",
    "accounts that were not verified in time",
    "a missing setting",
    "a message that is done in its transaction",
    "a message with a handler",
    "a message for a webhook endpoint",
]
