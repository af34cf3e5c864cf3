"""The operator's commands of `python -m outbox_relay`: look, mend, and find out what is wrong.

Each needs DATABASE_URL and nothing else, `doctor` looks at whatever is set. Every command takes `--json`. Exit codes: 0
it is done; 1 it cannot be done, a server cannot be used, or `doctor` found a fault; 2 the command line or the
environment is wrong.
"""

from typing import Final

import click

from outbox_relay.commands.dead_letters import dead, discard, retry
from outbox_relay.commands.doctor import doctor
from outbox_relay.commands.messages import list_, show
from outbox_relay.commands.prune import prune
from outbox_relay.commands.replay import replay
from outbox_relay.commands.stats import stats

COMMANDS: Final[tuple[click.Command, ...]] = (stats, list_, show, dead, retry, discard, replay, prune, doctor)
