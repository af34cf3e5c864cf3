"""Steps of the tests of rate limits: requests from one address."""

from limits import parse
from werkzeug.test import TestResponse

from shared.settings.rate_limits import RateLimits
from tests.programs.api_service import ApiService

LIMITS = RateLimits({"signup": parse("2 per minute"), "verify": parse("3 per minute"), "resend": parse("1 per minute")})


def sign_up(api: ApiService, address: str = "203.0.113.9", **headers: str) -> TestResponse:
    return api.client().post("/v1/users", json={}, headers=headers, environ_base={"REMOTE_ADDR": address})


def statuses(api: ApiService, *addresses: str) -> list[int]:
    return [sign_up(api, address).status_code for address in addresses]
