"""Steps of the tests of the pages."""

from werkzeug.test import TestResponse

from tests.programs.api_service import ALICE, PAGE, ApiService

VERIFY = "task:send_verify_email"


def fill_in(api: ApiService, **changes: str) -> TestResponse:
    return api.client().post("/", data={**ALICE, **changes}, headers=PAGE)
