"""How much of a relay's time may go to what is not publishing."""

from time import monotonic
from typing import Final

REAPING_SHARE: Final = 0.2
"""With a million jobs in Redis a step of a round takes seconds, and before the last step the first rows' leases are
over again: without a limit, publishing would stand still until workers have caught up."""

PRUNING_SHARE: Final = 0.2
"""Steps without a pause write so much that PostgreSQL makes a checkpoint every half a minute instead of every five, and
others' commits wait behind them for the disk."""

EXPIRY_SHARE: Final = 0.05
"""Nobody waits for an account to be gone."""

LOOKING_SHARE: Final = 0.05
"""For looks that find nothing as a rule. Only beside an old snapshot they take long."""


def period(began: float, share: float) -> float:
    """Give the seconds from the beginning of a step that has just ended to that of the next one.

    Args:
        began: when it began, by time.monotonic().
        share: how much of the time such steps may take, above 0 and up to 1.

    """
    return (monotonic() - began) / share
