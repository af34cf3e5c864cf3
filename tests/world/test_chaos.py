"""A short chaos run with Debian's servers and RQ's stock class."""

from pathlib import Path

import pytest

from tests.chaos.plan import KINDS
from tests.chaos.run import Options
from tests.chaos.test_chaos import play


@pytest.mark.e2e
def test_nothing_is_lost_while_everything_fails(server_folder: Path) -> None:
    play(Options(3900, 9.0, 2.0, tuple(KINDS), "stock", parent=server_folder))
