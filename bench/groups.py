"""The parts of the bench, by the names that `--only` takes, in the order in which they run."""

from collections.abc import Callable
from typing import Final

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.experiments import (
    burst,
    concurrency,
    consumers,
    destinations,
    expiry,
    growth,
    jobs,
    limits,
    relay,
    signup,
    upkeep,
    waking,
)
from bench.measuring import Experiment

Group = Callable[[Servers, Sizes], list[Experiment]]

GROUPS: Final[dict[str, Group]] = {
    "relay": relay.experiments,
    "waking": waking.experiments,
    "signup": signup.experiments,
    "limits": limits.experiments,
    "consumers": consumers.experiments,
    "destinations": destinations.experiments,
    "jobs": jobs.experiments,
    "concurrency": concurrency.experiments,
    "growth": growth.experiments,
    "upkeep": upkeep.experiments,
    "expiry": expiry.experiments,
    "burst": burst.experiments,
}
