"""Explore larger worlds than the tests do: `python -m tests.model --messages 2 --faults 1`."""

from __future__ import annotations

import sys

import click

from tests.model.explore import explore
from tests.model.messages.state import DEAD, DISCARDED, DONE, Config


@click.command()
@click.option("--messages", default=1, show_default=True)
@click.option("--relays", default=2, show_default=True)
@click.option("--consumers", default=2, show_default=True)
@click.option("--max-retries", default=1, show_default=True)
@click.option("--faults", default=2, show_default=True, help="How many faults may happen in one run.")
@click.option("--orders", default=0, show_default=True, help="How many orders an operator may give in one run.")
def main(messages: int, relays: int, consumers: int, max_retries: int, faults: int, orders: int) -> None:
    """Visit every reachable world and say whether each property holds in all of them."""
    explored = explore(Config(messages, relays, consumers, max_retries, faults, orders))
    click.echo(explored)
    for broken in explored.violations:
        click.echo(explored.counterexample(broken))
    stuck = explored.without_way_to(lambda world: all(row.status in (DONE, DEAD, DISCARDED) for row in world.rows))
    for number in stuck[:1]:
        click.echo(f"NOT: from every world each message can reach done or dead; stuck in {len(stuck)} worlds, one is\n")
        click.echo(explored.trace(number))
    if explored.violations or stuck:
        sys.exit(1)
    click.echo("every property holds in every world")


if __name__ == "__main__":
    main()
