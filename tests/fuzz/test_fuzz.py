"""A short run with a fixed seed. `make world` adds the values at each limit, `make fuzz` makes a long one."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuzz.running import failures, fuzz, usable_link, usable_token
from tests.programs.api_service import KEY
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded


@pytest.mark.parametrize("examples", [5, pytest.param(25, marks=pytest.mark.long)])
def test_no_request_finds_an_answer_that_the_document_does_not_know(
    api_origin: Preloaded, database_url: str, tmp_path: Path, examples: int
) -> None:
    check(api_origin, database_url, tmp_path, ["examples", "fuzzing"], examples)


def check(api_origin: Preloaded, database_url: str, folder: Path, phases: Sequence[str], examples: int = 25) -> None:
    log = folder / "gunicorn.log"
    with gunicorn(api_origin, database_url, log) as client:
        link, token = usable_link(database_url, KEY), usable_token(database_url, KEY)
        url = str(client.base_url).rstrip("/")
        done = fuzz(url, folder, link, token, examples=examples, seed=20261124, phases=phases)

    assert done.returncode == 0, done.stdout
    assert "8 selected / 8 total" in done.stdout
    assert "WARNINGS" not in done.stdout, done.stdout
    assert failures(log.read_text()) == []
