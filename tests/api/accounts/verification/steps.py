"""Steps of the tests of verification: what a link has written."""

from tests.programs.api_service import ApiService

PATH = "/v1/verify_email"
VERIFY = "task:send_verify_email"
WELCOME = "task:send_welcome_email"


def used_records(api: ApiService) -> list[int]:
    return [row["id"] for row in api.sql("SELECT id FROM verify_emails WHERE used_at IS NOT NULL ORDER BY id")]
