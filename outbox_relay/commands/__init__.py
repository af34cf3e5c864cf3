"""The operator's commands of `python -m outbox_relay`.

Each needs DATABASE_URL alone; `doctor` checks all variables that are set. Each accepts `--json`. Exit codes: 0 success;
1 the command failed, a server cannot be used, or `doctor` found a fault; 2 the command line or the environment is
wrong.
"""

from typing import Final

import click

from outbox_relay.commands.dead_letters import dead, discard, retry
from outbox_relay.commands.destinations import destinations
from outbox_relay.commands.doctor import doctor
from outbox_relay.commands.messages import list_, show
from outbox_relay.commands.prune import prune
from outbox_relay.commands.replay import replay
from outbox_relay.commands.stats import stats
from outbox_relay.commands.webhooks import webhooks

COMMANDS: Final[tuple[click.Command, ...]] = (
    stats,
    list_,
    show,
    dead,
    retry,
    discard,
    destinations,
    replay,
    prune,
    webhooks,
    doctor,
)
