"""A world, and what is logged in it."""

from collections.abc import Iterator

import pytest
import structlog

from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.processing.mail_server.policy_pipeline import Pipeline, pipeline_of
from tests.consumer.stages.processing.world import Logs, World, world_of


@pytest.fixture
def world(database_url: str, mailbox: MailCatcher) -> Iterator[World]:
    with world_of(database_url, mailbox.smtp_port) as opened:
        yield opened


@pytest.fixture
def logs() -> Iterator[Logs]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def pipeline(world: World) -> Iterator[Pipeline]:
    with pipeline_of(world, {"everybody"}) as opened:
        yield opened
