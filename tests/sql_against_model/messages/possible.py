"""List the steps that may come next, and those that must change nothing."""

from collections.abc import Iterator

from tests.model.messages.protocol import steps
from tests.model.messages.relay import relay_steps
from tests.model.messages.rows import Step
from tests.model.messages.state import (
    BEFORE_CLAIM,
    DEAD,
    IDLE,
    NO_TOKEN,
    PENDING,
    READ,
    Config,
    World,
    any_locked,
    locked,
)
from tests.sql_against_model.messages.servers import Servers
from tests.sql_against_model.moment import LOCKED, NOTHING, Moment


def moments(world: World, config: Config, heads: set[str], servers: Servers) -> Iterator[Moment]:
    """What can happen now, as far as it can be done here."""
    for step, after in steps(world, config):
        if step.name == "pop":
            job = after.consumers[int(step.who[-1])].job
            possible = servers.job_id(job) in heads
        elif step.name == "lease_ends":
            possible = world.rows[int(step.who[-1])].doubt == NO_TOKEN
        else:
            possible = step.name != "reap_running" or not world.grace
        if possible:
            yield Moment(step, world, after)
    for step in tries(world, config):
        yield Moment(step, world, world)


def tries(world: World, config: Config) -> Iterator[Step]:
    """What the model leaves out, for it changes nothing: statements that meet a lock, or no row that fits."""
    for number, consumer in enumerate(world.consumers):
        if consumer.phase in BEFORE_CLAIM and locked(world, consumer.job.message):
            yield Step("claim", f"consumer {number}", LOCKED)
    for number in range(len(world.relays)):
        yield from tries_of_relay(world, config, number)
    for message, row in enumerate(world.rows):
        if row.status != DEAD:
            yield Step("retry", "operator", f"m{message}, {NOTHING}")
        if row.status not in (DEAD, PENDING):
            yield Step("discard", "operator", f"m{message}, {NOTHING}")


def tries_of_relay(world: World, config: Config, number: int) -> Iterator[Step]:
    relay = world.relays[number]
    who = f"relay {number}"
    if relay.phase == READ and any_locked(world, relay.found or relay.missing):
        yield Step("renew_found" if relay.found else "return_missing", who, LOCKED)
    if relay.phase == IDLE:
        something = {step.name for step, _ in relay_steps(world, config, number)}
        for name in ("take_batch", "find_lease_expired", "reap_running"):
            if name not in something and not (name == "reap_running" and world.grace):
                yield Step(name, who, NOTHING)
