"""What an endpoint's answers mean."""

from datetime import UTC, datetime

import pytest

from consumer.webhooks.answers import is_accepted, is_outage, reason_of, retry_after_seconds, wants_no_more
from consumer.webhooks.client import Answer

NOW = datetime(2026, 11, 30, 19, 0, tzinfo=UTC)


ACCEPTED, OUTAGE, GONE, FAILURE = (True, False, False), (False, True, False), (False, False, True), (False,) * 3


@pytest.mark.parametrize(
    ("statuses", "meaning"),
    [
        ((200, 201, 202, 204, 299), ACCEPTED),
        ((429, 502, 503, 504), OUTAGE),
        ((410,), GONE),
        ((101, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 422, 500, 501, 505, 599), FAILURE),
    ],
)
def test_each_status_has_one_meaning(statuses: tuple[int, ...], meaning: tuple[bool, ...]) -> None:
    for status in statuses:
        answer = Answer(status)
        assert (is_accepted(answer), is_outage(answer), wants_no_more(answer)) == meaning


def test_the_reason_names_the_status_and_that_redirects_are_not_followed() -> None:
    assert reason_of(Answer(500)) == "the endpoint answered 500"
    assert reason_of(Answer(302)) == "the endpoint answered 302: redirects are not followed"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        (" 5 ", 5),
        ("3600", 3600),
        ("86400", 3600),
        ("9" * 400, 3600),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("\u0663", 0),
        ("Mon, 30 Nov 2026 19:10:00 GMT", 600),
        ("Mon, 30 Nov 2026 18:00:00 GMT", 0),
        ("Tue, 30 Nov 2027 19:00:00 GMT", 3600),
        ("Mon, 99 Nov 2026 19:10:00 GMT", 0),
    ],
)
def test_retry_after_counts_up_to_an_hour(text: str | None, seconds: float) -> None:
    assert retry_after_seconds(Answer(503, text), NOW) == seconds
