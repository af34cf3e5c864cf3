"""How long a message waits after a failed attempt."""

import random
from typing import Final

OUTAGE_SECONDS: Final = 60.0
"""How long a message waits that the mail server dropped after it had taken the sender."""

LONGEST_DELAY_SECONDS: Final = 365 * 86_400.0
"""The number of a message's attempts is anybody's; the fourth power of a large one is no time that PostgreSQL has."""

_RANDOM = random.SystemRandom()


def retry_delay_seconds(attempt: int, scale: float) -> float:
    """Give the wait after the failed attempt with this number (the first is 1).

    The rule is asynq's (hibiken/asynq, DefaultRetryDelayFunc): n^4 + 15 + random(0..30) * (n + 1), n retries before.
    """
    retried = attempt - 1
    return min(LONGEST_DELAY_SECONDS, scale * (retried**4 + 15 + _RANDOM.randint(0, 30) * (retried + 1)))
