from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.consumer.stages.processing.world import World


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with closing(World(database_url, 1)) as opened:
        yield opened
