"""How long a message waits before its next retry, or after an outage."""

import random
from typing import Final

OUTAGE_SECONDS: Final = 60.0
"""How long a message waits when the mail server became unavailable after it had accepted the sender."""

LONGEST_DELAY_SECONDS: Final = 365 * 86_400.0
"""A row may hold any number of attempts, and PostgreSQL's times cannot hold the fourth power of a large one."""

_RANDOM = random.SystemRandom()


def retry_delay_seconds(attempt: int, scale: float) -> float:
    """Return the delay after the failed attempt with this number. The first attempt is 1.

    The formula is asynq's (hibiken/asynq, DefaultRetryDelayFunc): n^4 + 15 + random(0..30) * (n + 1), where n is the
    number of retries so far.
    """
    retried = attempt - 1
    return min(LONGEST_DELAY_SECONDS, scale * (retried**4 + 15 + _RANDOM.randint(0, 30) * (retried + 1)))
