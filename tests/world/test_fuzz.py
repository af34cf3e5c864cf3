"""The values at each limit of the OpenAPI document, which the suite leaves out: they take half a minute."""

from pathlib import Path

import pytest

from tests.fuzz.test_fuzz import check
from tests.programs.preloading import Preloaded


@pytest.mark.timeout(300)
def test_no_value_at_a_limit_finds_an_answer_that_the_document_does_not_know(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    check(api_origin, database_url, tmp_path, ["coverage"])
