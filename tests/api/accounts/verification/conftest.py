from collections.abc import Iterator

import pytest

from tests.programs.api_service import ApiService, api_service


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up."""
    with api_service(database_url) as service:
        service.sign_up()
        yield service
