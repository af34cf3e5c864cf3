"""Structured logging: one line for each event, as JSON, or as coloured text on a terminal."""

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import structlog

IDS_IN_A_LINE: Final = 100
"""Log collectors cut or drop long lines."""


def configure_logging() -> None:
    """Write every log line of this process, ours and the libraries', to standard error.

    A terminal gets coloured text, anything else one JSON object per line. Only the entry points of processes call this.
    """
    shared_steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    else:
        shared_steps.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared_steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def lines_of(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the ids in groups, each for one log line."""
    for start in range(0, len(ids), IDS_IN_A_LINE):
        yield ids[start : start + IDS_IN_A_LINE]
