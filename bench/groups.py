"""The parts of the bench, by the names that `--only` takes, in the order in which they run."""

from collections.abc import Callable
from typing import Final

from bench.experiments import consumers, relay
from bench.measuring import Experiment
from bench.servers import Servers
from bench.sizes import Sizes

Group = Callable[[Servers, Sizes], list[Experiment]]

GROUPS: Final[dict[str, Group]] = {
    "relay": relay.experiments,
    "consumers": consumers.experiments,
}
