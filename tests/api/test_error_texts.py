"""Every error text that a person or a program can get from the API, word for word."""

from collections.abc import Iterator
from typing import Any

import pytest
from limits import parse

from api.accounts.corrections import TAKEN as ADDRESS_TAKEN
from api.accounts.corrections import TAKEN_FIELD, TOO_OFTEN, VERIFIED
from api.accounts.idempotency import IN_FLIGHT, USED
from api.accounts.routes.verification import EXPIRED, PROOF_REFUSED, PROOF_REQUIRED, TAKEN
from api.http.problems import detail_of
from shared.settings.rate_limits import RateLimits
from tests.programs.api_service import ALICE, ApiService, api_service

FIELDS = [
    ("username", "", "Enter a username."),
    ("username", "al", "Use at least 3 characters."),
    ("username", "a" * 101, "Use at most 100 characters."),
    ("username", "Alice", "Use only lowercase letters a-z, digits and underscores."),
    ("username", None, "Send a string, not null."),
    ("username", 7, "Send a JSON string, in quotation marks."),
    ("full_name", "", "Enter your full name."),
    ("full_name", "a" * 101, "Use at most 100 characters."),
    ("full_name", "\u200b", "Enter a name with visible characters."),
    (
        "full_name",
        "Alice\u202eecilA",
        "Write the name on one line, without control characters or characters that change the writing direction.",
    ),
    ("email", "", "Enter your email address."),
    ("email", "alice", "Enter an email address like name@example.com, without spaces or quotes."),
    ("email", f"{'a' * 250}@example.com", "Use at most 254 characters."),
    ("email", "älice@example.com", "Use only ASCII characters before the @. Many mail servers refuse others."),
    ("password", "short", "Use at least 8 characters."),
    ("password", "a" * 129, "Use at most 128 characters."),
    ("password", "correct\0horse", "Use only characters that you can type. Spaces are fine."),
    ("password", "password1", "This password is too common and easy to guess. Try a few unrelated words."),
    (
        "password",
        "alice2026!",
        (
            "This password is too similar to your username or email address, so it is easy to guess. Try a few"
            " unrelated words."
        ),
    ),
    ("role", "admin", "Unknown field: remove it."),
]
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REQUESTS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v1/users", {"data": "{}"}, 415, "The body must be JSON. Send it with Content-Type: application/json."),
    ("POST", "/v1/users", {"json": [1]}, 422, "The body must be a JSON object."),
    (
        "POST",
        "/v1/users",
        {"data": "{", "headers": JSON},
        400,
        "The body is not valid JSON at line 1, column 2. Send one JSON object.",
    ),
    (
        "POST",
        "/v1/users",
        {"data": b"\xff", "headers": JSON},
        400,
        "The body is not valid UTF-8. Encode the JSON as UTF-8.",
    ),
    (
        "POST",
        "/v1/users",
        {"data": "[NaN]", "headers": JSON},
        400,
        "The body contains a number that JSON does not allow, or one that is too long.",
    ),
    ("POST", "/v1/users", {"json": {}}, 422, "Some fields are not valid. See errors for each one."),
    (
        "POST",
        "/v1/users",
        {"json": ALICE, "headers": {"Idempotency-Key": '""'}},
        400,
        "Idempotency-Key must be a quoted string of 1 to 255 printable ASCII characters. Send a UUID.",
    ),
    ("POST", "/v1/verify_email", {}, 422, "This link is incomplete. Open it exactly as it is in the email."),
    (
        "POST",
        "/v1/verify_email?email_id=1&secret_code=x",
        {},
        404,
        "This link is not valid. Open the one in the latest email.",
    ),
    (
        "POST",
        "/v1/verify_email",
        {"data": "x", "headers": {"Content-Type": "text/plain"}},
        415,
        "Send JSON or a form, or put the parameters into the query.",
    ),
    (
        "GET",
        "/v1/signup",
        {},
        401,
        (
            "We don't recognize this signup. Sign up again with the same username and password, or send its"
            " signup_token as Authorization: Bearer."
        ),
    ),
]
PAGES: list[tuple[dict[str, Any], str]] = [
    (
        {"data": "x", "headers": {"Content-Type": "text/plain"}},
        "The body must be a form. Send it with Content-Type: application/x-www-form-urlencoded.",
    ),
    (
        {"data": "", "headers": FORM | {"Sec-Fetch-Site": "cross-site"}},
        "This form was sent from another site. Open the page here and fill it in.",
    ),
]


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


def test_every_error_of_a_field(api: ApiService) -> None:
    answers = [api.sign_up(**{field: value}) for field, value, _ in FIELDS]

    errors = [(answer.status_code, answer.get_json()["errors"]) for answer in answers]
    assert errors == [(422, [{"field": field, "pointer": f"#/{field}", "detail": text}]) for field, _, text in FIELDS]


def test_a_field_that_is_missing(api: ApiService) -> None:
    answer = api.client().post("/v1/users", json={})

    assert [error["detail"] for error in answer.get_json()["errors"]] == ["This field is required."] * 4


def test_a_parameter_of_a_link_that_is_missing(api: ApiService) -> None:
    answer = api.client().post("/v1/verify_email?email_id=1")

    assert answer.get_json()["errors"] == [{"field": "secret_code", "detail": "Required: copy it from the link."}]


def test_what_is_taken(api: ApiService) -> None:
    api.sign_up()
    api.client().post(api.link(api.record()))

    answer = api.sign_up().get_json()

    assert answer["detail"] == "Already taken: username and email."
    assert [error["detail"] for error in answer["errors"]] == [
        "This username is taken. Choose another one.",
        "An account with this email address already exists. Use that account, or another address.",
    ]


def test_every_error_of_a_request(api: ApiService) -> None:
    answers = [api.client().open(path, method=method, **kwargs) for method, path, kwargs, _, _ in REQUESTS]

    assert [(answer.status_code, answer.get_json()["detail"]) for answer in answers] == [
        (status, text) for _, _, _, status, text in REQUESTS
    ]


def test_every_error_of_a_page(api: ApiService) -> None:
    answers = [api.client().post("/", **kwargs) for kwargs, _ in PAGES]

    assert [text in answer.text for answer, (_, text) in zip(answers, PAGES, strict=True)] == [True] * len(PAGES)


def test_too_many_requests(database_url: str) -> None:
    with api_service(database_url, rate_limits=RateLimits({"verify": parse("1 per minute")})) as api:
        answers = [api.client().get("/v1/signup", environ_base={"REMOTE_ADDR": "192.0.2.1"}) for _ in range(2)]

    seconds = answers[1].headers["Retry-After"]
    wait = f"{seconds} second" + "s" * (seconds != "1")
    assert answers[1].get_json()["detail"] == f"Too many requests from your address. Try again in {wait}."


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "The request could not be understood. Check its headers and its body."),
        (404, "There is nothing at this address. Check the path."),
        (405, "This address does not support this method. Use one that the Allow header lists."),
        (408, "The body did not arrive in time. Send the request again."),
        (413, "The body is larger than 16 KiB. Send a smaller one."),
        (414, "The URL is too long. Send its parameters in the body."),
        (415, "This address does not support this content type. Send application/json."),
        (431, "The headers are too large. Send fewer or shorter ones."),
        (500, "Something went wrong on our side, and we have logged it. Trying again may help."),
        (
            503,
            (
                "The database is not answering. Your request may have been saved all the same. Try again in a moment:"
                " repeating it is safe."
            ),
        ),
    ],
)
def test_a_status_of_which_nothing_more_is_known(status: int, text: str) -> None:
    assert detail_of(status) == text


def test_texts_of_states_that_other_tests_bring_about() -> None:
    assert (IN_FLIGHT, USED, EXPIRED, TAKEN, PROOF_REQUIRED, PROOF_REFUSED) == (
        "A request with this Idempotency-Key is still in progress. Try again in a moment.",
        "This Idempotency-Key was already used with another body. Use a new key for a new request.",
        "This link has expired. Request a new one with POST /v1/verify_email/resend.",
        "Another account has this email address now. Use that account, or change the address of yours.",
        (
            "Several accounts use this email address. Show which one is yours: send its signup token, or its username"
            " and password, with the link."
        ),
        "This username and password don't match an account that uses this email address. Try again.",
    )
    assert (VERIFIED, ADDRESS_TAKEN, TAKEN_FIELD, TOO_OFTEN) == (
        "The email address of this account is already verified. It cannot be changed here.",
        "Already taken: email.",
        "An account with this email address already exists. Use that account, or another address.",
        "You have changed the email address 5 times in a day. Try again tomorrow.",
    )
