from collections.abc import Iterator

import pytest

from tests.api.clients.steps import LIMITS
from tests.programs.api_service import ApiService, api_service


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, rate_limits=LIMITS) as service:
        yield service
