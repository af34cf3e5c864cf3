from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from tests.api.ops.steps import TOKEN
from tests.programs.api_service import ApiService, api_service


@pytest.fixture
def service(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, ops_token=TOKEN) as running:
        yield running


@pytest.fixture
def operator(service: ApiService) -> FlaskClient:
    """A signed-in operator."""
    client = service.client()
    assert client.post("/ops/login", data={"token": TOKEN}).status_code == 303
    return client
