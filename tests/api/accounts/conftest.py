from collections.abc import Iterator

import pytest

from tests.api.accounts.steps import bearer
from tests.programs.api_service import ApiService, api_service


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


@pytest.fixture
def alice(api: ApiService) -> dict[str, str]:
    """Alice has signed up. Returns the header with her token."""
    return bearer(api.sign_up())
