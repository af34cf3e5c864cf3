"""The command line: `python -m outbox_relay` runs the relay."""

import os
import signal
import sys
import threading
from dataclasses import replace
from types import FrameType
from typing import Final

import click
import psycopg
import structlog

from outbox_relay.broker import BrokerUnavailableError, open_broker
from outbox_relay.commands import COMMANDS
from outbox_relay.commands.exit_codes import EXIT_SETTINGS
from outbox_relay.loop.pacing import Pacing
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from outbox_relay.metrics.relay_metrics import RelayMetrics
from outbox_relay.metrics.server import serve
from shared.database.connections import UnsuitableDatabaseError
from shared.errors import SettingsError
from shared.logs import configure_logging
from shared.outage_causes import postgresql_cause
from shared.settings.relay import RelaySettings, read_relay_settings

_log = structlog.get_logger("outbox_relay")

EXIT_UNREACHABLE: Final = 1
_STOP_SECONDS: Final = 4.0


@click.group(invoke_without_command=True)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10_000),
    help="Largest number of messages in one transaction. Default: OUTBOX_BATCH_SIZE, or 1000.",
)
@click.option(
    "--poll-seconds",
    type=click.FloatRange(0, 86_400, min_open=True),
    help="Longest sleep between two polls of the outbox. Default: OUTBOX_POLL_SECONDS, or 1.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Publish what is due now, after one sweep of the reaper, and exit: 0, or 1 if PostgreSQL or Redis is down.",
)
@click.pass_context
def main(context: click.Context, batch_size: int | None, poll_seconds: float | None, *, once: bool) -> None:
    """Move messages from the outbox to RQ, and recover those that Redis or a worker lost.

    Without a command it runs the relay; the options below are the relay's.

    It runs until SIGTERM or SIGINT: the current batch is finished or rolled back, and it exits with 0 within 5 seconds.
    Any number of relays may run side by side. Settings come from the environment (DATABASE_URL, RQ_REDIS_URL and
    others, see docs/configuration.md); a missing or malformed one ends the process with exit code 2.

    The commands are for operators. Exit codes: 0 success; 1 the command failed, a server cannot be used, or `doctor`
    found a fault; 2 the command line or the environment is wrong.
    """
    if context.invoked_subcommand is not None:
        return
    # click passes `obj` of a caller in Python on; from a shell it is None.
    configure_logging()
    try:
        settings = read_relay_settings()
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    if batch_size is not None:
        settings = replace(settings, batch_size=batch_size)
    if poll_seconds is not None:
        settings = replace(settings, poll_seconds=poll_seconds)
    _run(settings, once=once, pacing=context.obj)


for _command in COMMANDS:
    main.add_command(_command)


def _run(settings: RelaySettings, *, once: bool, pacing: Pacing | None) -> None:
    broker = open_broker(settings.redis_url, settings.key_prefix, settings.run_lease_seconds)
    wakeup = WakeupPipe()
    metrics = RelayMetrics(settings.database_url)
    relay = Relay(settings, broker, wakeup, metrics, pacing=pacing)
    _stop_on_signals(relay)
    if not once:
        _serve_metrics(settings, metrics)
    try:
        if once:
            _drain(relay, settings.database_url)
        else:
            _log.info("relay.started", batch_size=settings.batch_size, poll_seconds=settings.poll_seconds)
            relay.run()
            _log.info("relay.stopped")
    except UnsuitableDatabaseError as exc:
        click.echo(f"cannot start, {exc}", err=True)
        sys.exit(EXIT_SETTINGS)
    finally:
        _ignore_signals()
        relay.close()
        wakeup.close()


def _serve_metrics(settings: RelaySettings, metrics: RelayMetrics) -> None:
    if settings.metrics_address is None:
        return
    try:
        serve(settings.metrics_address, metrics)
    except OSError as exc:
        click.echo(f"OUTBOX_METRICS_ADDRESS: cannot listen there: {exc.strerror}", err=True)
        sys.exit(EXIT_SETTINGS)


def _drain(relay: Relay, database_url: str) -> None:
    try:
        published = relay.drain()
    except BrokerUnavailableError as exc:
        _log.error("outbox.not_drained", error=str(exc))
        sys.exit(EXIT_UNREACHABLE)
    except UnsuitableDatabaseError:
        raise
    except psycopg.Error as exc:
        _log.error("outbox.not_drained", error=f"PostgreSQL cannot be used: {postgresql_cause(exc, database_url)}")
        sys.exit(EXIT_UNREACHABLE)
    _log.info("outbox.drained", messages=published)
    if blocked := relay.blocked_queues:
        _log.error("outbox.not_drained", error=f"Redis holds no list at {', '.join(blocked)}")
        sys.exit(EXIT_UNREACHABLE)


def _stop_on_signals(relay: Relay) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        relay.stop()
        # A server that never answers blocks the current batch: exiting rolls it back.
        deadline = threading.Timer(_STOP_SECONDS, os._exit, [0])
        deadline.daemon = True
        deadline.start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _ignore_signals() -> None:
    """Ignore signals from now on: Python removes our handlers at exit, and a second signal would look like a crash."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
