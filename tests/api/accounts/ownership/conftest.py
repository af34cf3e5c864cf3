import pytest

from tests.api.accounts.ownership.people import MALLORY
from tests.programs.api_service import ALICE, ApiService


@pytest.fixture
def contested(api: ApiService) -> ApiService:
    """An API where the owner and then a stranger have signed up with one address."""
    for person in (ALICE, {**MALLORY, "email": "Alice@Example.com"}):
        assert api.sign_up(**person).status_code == 201
    return api


@pytest.fixture(params=["before", "after"])
def in_either_order(request: pytest.FixtureRequest, api: ApiService) -> ApiService:
    """The same, with the owner or the stranger first."""
    people = [ALICE, {**MALLORY, "email": "Alice@Example.com"}]
    for person in people if request.param == "after" else reversed(people):
        assert api.sign_up(**person).status_code == 201
    return api
