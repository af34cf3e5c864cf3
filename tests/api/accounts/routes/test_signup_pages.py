"""The pages of a signup as a browser without JavaScript uses them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import psycopg
import pytest
from werkzeug.test import TestResponse

from tests.html_page import Page
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service

VERIFY = "task:send_verify_email"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


def fill_in(api: ApiService, **changes: str) -> TestResponse:
    return api.client().post("/", data={**ALICE, **changes}, headers=PAGE)


def test_form_signs_up_and_leads_to_the_inbox_page(api: ApiService) -> None:
    client = api.client()

    sent = client.post("/", data=ALICE, headers=PAGE)
    inbox = client.get(urljoin("/", sent.headers["Location"]), headers=PAGE)

    assert sent.status_code == 303
    assert api.messages() == [(VERIFY, "alice")]
    assert "Check your inbox" in inbox.text
    assert "alice@example.com" in inbox.text
    assert "alice" not in sent.headers["Location"]


def test_address_is_kept_in_a_cookie_that_no_script_and_no_other_site_gets(api: ApiService) -> None:
    response = fill_in(api)

    attributes = response.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert "Secure" not in attributes


def test_cookie_is_for_tls_alone_where_there_is_tls(api: ApiService) -> None:
    response = api.client().post("/", data=ALICE, base_url="https://example.com")

    assert "Secure" in response.headers["Set-Cookie"].split("; ")


def test_errors_stand_at_their_fields_and_what_was_typed_stays_but_the_password(api: ApiService) -> None:
    response = fill_in(api, username="Alice!", email='"><b>@', full_name="Alice Adams")

    page = Page(response)
    assert response.status_code == 422
    assert page.fields == {"username": "Alice!", "full_name": "Alice Adams", "email": '"><b>@', "password": ""}
    for name in ("username", "email"):
        assert page.inputs[name]["aria-invalid"] == "true"
        assert f"{name}-error" in (page.inputs[name]["aria-describedby"] or "").split()
    assert "lowercase letters a-z" in page.texts["username-error"]
    assert "name@example.com" in page.texts["email-error"]
    assert "full_name-error" not in page.texts
    assert "aria-invalid" not in page.inputs["full_name"]
    assert "password-error" not in page.texts
    assert api.messages() == []


def test_every_field_has_a_label_and_each_hint_is_tied_to_its_field(api: ApiService) -> None:
    page = Page(api.client().get("/", headers=PAGE))

    assert page.labels == list(page.inputs) == ["username", "full_name", "email", "password"]
    assert [entry["id"] for entry in page.inputs.values()] == page.labels
    described = [entry.get("aria-describedby") for entry in page.inputs.values()]
    assert [name for name in described if name] == [name for name in page.texts if name.endswith("-hint")]


def test_taken_name_and_address_stand_at_their_fields(api: ApiService) -> None:
    fill_in(api)
    api.sql("UPDATE users SET is_email_verified = true")

    response = fill_in(api)

    page = Page(response)
    assert response.status_code == 409
    assert [name for name in page.texts if name.endswith("-error")] == ["username-error", "email-error"]


def test_least_length_of_a_password_is_said_and_held_at_every_door(database_url: str) -> None:
    with api_service(database_url, password_min_length=15) as strict:
        client = strict.client()
        form = client.get("/", headers=PAGE).text
        rule = client.get("/openapi.json").get_json()["components"]["schemas"]["SignUp"]["properties"]["password"]
        wish = {**ALICE, "password": "14 characters!"}
        page = Page(client.post("/", data=wish, headers=PAGE))
        answer = client.post("/v1/users", json=wish)
        taken = client.post("/v1/users", json={**ALICE, "password": "15 characters!!"})

    assert "15 to 128 characters" in form
    assert (rule["minLength"], rule["maxLength"], rule["description"][:9]) == (15, 128, "15 to 128")
    assert page.texts["password-error"] == "Use at least 15 characters."
    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "password")
    assert taken.status_code == 201


# ---- a form that is sent twice


def test_every_form_has_a_key_of_its_own(api: ApiService) -> None:
    pages = [Page(api.client().get("/")), Page(api.client().get("/")), Page(fill_in(api, username="A"))]

    assert [len(page.key) for page in pages] == [22] * 3
    assert len({page.key for page in pages}) == 3


def test_form_that_is_sent_twice_leads_to_the_inbox_page_both_times(api: ApiService) -> None:
    key = Page(api.client().get("/")).key

    sent = [fill_in(api, idempotency_key=key) for _ in range(2)]

    assert [response.status_code for response in sent] == [303, 303]
    # The same cookies, except for the time that one contains.
    cookies = [[each.partition(";")[0] for each in response.headers.getlist("Set-Cookie")] for response in sent]
    assert cookies[0] == cookies[1]
    assert api.messages() == [(VERIFY, "alice")]


def test_form_that_is_sent_again_while_it_is_worked_on_waits_and_leads_to_the_inbox_page(api: ApiService) -> None:
    key = Page(api.client().get("/")).key

    with ThreadPoolExecutor(2) as threads, psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        sent = [threads.submit(fill_in, api, idempotency_key=key) for _ in range(2)]
        api.wait_for_a_lock(statements=2)
        other.rollback()
        statuses = [each.result(timeout=10).status_code for each in sent]

    assert statuses == [303, 303]
    assert api.messages() == [(VERIFY, "alice")]


def test_form_that_is_corrected_is_another_request(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    fill_in(api, idempotency_key=key)

    back = fill_in(api, idempotency_key=key, username="alice2", email="alice2@example.com")

    assert back.status_code == 303
    assert api.messages() == [(VERIFY, "alice"), (VERIFY, "alice2")]


def test_refusal_of_a_form_is_not_kept(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    fill_in(api, password="another horse")  # noqa: S106 - the tests' own
    refused = fill_in(api, idempotency_key=key)
    api.sql("DELETE FROM users")

    assert [refused.status_code, fill_in(api, idempotency_key=key).status_code] == [409, 303]


def test_form_that_failed_on_our_side_keeps_its_key(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    with api_service("postgresql://nobody@127.0.0.1:1/none") as broken:
        failed = Page(fill_in(broken, idempotency_key=key))

    assert failed.key == key


def test_two_people_with_one_key_are_two(api: ApiService) -> None:
    key = "0" * 22

    sent = [fill_in(api, idempotency_key=key, username=name, email=f"{name}@x.example") for name in ("ann", "bob")]

    assert [response.status_code for response in sent] == [303, 303]
    assert api.messages() == [(VERIFY, "ann"), (VERIFY, "bob")]


@pytest.mark.parametrize("key", ["", "short", "x" * 65, "\u00e9" * 22, '"' * 22])
def test_form_without_a_key_of_ours_signs_up(api: ApiService, key: str) -> None:
    assert fill_in(api, idempotency_key=key).status_code == 303
    assert api.sql("SELECT 1 FROM idempotency_keys") == []


def test_absent_postgresql_keeps_what_was_typed() -> None:
    with api_service("postgresql://nobody@127.0.0.1:1/none") as api:
        response = fill_in(api)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert Page(response).fields["full_name"] == "Alice Adams"
    assert "The database is not answering" in response.text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x" * 16_385, "application/x-www-form-urlencoded", 413),
        (b'{"username": "alice"}', "application/json", 415),
        (b"", "", 415),
    ],
)
def test_what_is_no_form_is_refused_with_a_page(api: ApiService, body: bytes, kind: str, status: int) -> None:
    response = api.client().post("/", data=body, content_type=kind, headers=PAGE)

    assert (response.status_code, response.mimetype) == (status, "text/html")
    assert api.messages() == []


def test_mail_is_sent_again_from_the_inbox_page(api: ApiService) -> None:
    client = api.client()
    client.post("/", data=ALICE)
    form = Page(client.get("/inbox"))

    sent = client.post("/inbox", data=form.fields)
    after = client.get(urljoin("/inbox", sent.headers["Location"]))

    assert form.fields == {"email": "alice@example.com"}
    assert sent.status_code == 303
    assert "another email is on its way" in after.text
    assert api.messages() == [(VERIFY, "alice")] * 2


def test_page_after_a_resend_does_not_show_who_has_an_account(api: ApiService) -> None:
    fill_in(api)
    texts = []
    for email in ("alice@example.com", "nobody@example.com"):
        client = api.client()
        sent = client.post("/inbox", data={"email": email})
        texts.append(client.get(urljoin("/inbox", sent.headers["Location"])).text.replace(email, ""))

    assert texts[0] == texts[1]


def test_inbox_without_a_cookie_asks_for_the_address(api: ApiService) -> None:
    page = Page(api.client().get("/inbox"))

    assert (page.fields, page.labels) == ({"email": "", "username": ""}, ["email", "username"])


@pytest.mark.parametrize("value", ["nonsense", "<script>alert(1)</script>@example.com", ""])
def test_invalid_cookie_is_ignored(api: ApiService, value: str) -> None:
    client = api.client()
    client.set_cookie("inbox", value)

    response = client.get("/inbox")

    assert Page(response).fields == {"email": "", "username": ""}
    assert "<script" not in response.text


def test_wrong_address_is_reported_at_the_field(api: ApiService) -> None:
    response = api.client().post("/inbox", data={"email": "nobody"})

    page = Page(response)
    assert response.status_code == 422
    assert page.fields == {"email": "nobody", "username": ""}
    assert "name@example.com" in page.texts["email-error"]


def test_only_a_development_stack_shows_where_its_mails_are(database_url: str, api: ApiService) -> None:
    with api_service(database_url, mailbox_url="http://127.0.0.1:8025") as development:
        client = development.client()
        client.post("/", data=ALICE)
        assert "http://127.0.0.1:8025" in client.get("/inbox").text

    client = api.client()
    client.set_cookie("inbox", ALICE["email"])
    assert "development" not in client.get("/inbox").text


# ---- forms of other sites


@pytest.mark.parametrize("path", ["/", "/inbox"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://["},
    ],
)
def test_form_of_another_site_is_refused(api: ApiService, path: str, headers: dict[str, str]) -> None:
    response = api.client().post(path, data=ALICE, headers={**PAGE, **headers})

    assert (response.status_code, response.mimetype) == (403, "text/html")
    assert api.messages() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "null"},
        {},
    ],
)
def test_form_of_our_own_pages_is_taken(api: ApiService, headers: dict[str, str]) -> None:
    assert api.client().post("/", data=ALICE, headers=headers).status_code == 303


def test_page_of_another_site_may_lead_to_the_form(api: ApiService) -> None:
    assert api.client().get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


# ---- headers


@pytest.mark.parametrize("path", ["/", "/inbox", "/v1/verify_email", "/nowhere/at/all", "/static/pages.css"])
def test_every_page_forbids_the_browser_whatever_it_does_not_need(api: ApiService, path: str) -> None:
    response = api.client().get(path, headers=PAGE, buffered=True)

    assert response.headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Strict-Transport-Security" not in response.headers


@pytest.mark.parametrize("path", ["/", "/inbox", "/v1/verify_email", "/nowhere/at/all"])
def test_page_loads_files_of_ours_alone_and_has_no_script(api: ApiService, path: str) -> None:
    page = Page(api.client().get(path, headers=PAGE))

    files = [urljoin(path, name) for name in page.loaded]
    assert set(files) == {"/static/icon.svg", "/static/pages.css"}
    assert {api.client().get(name, buffered=True).status_code for name in files} == {200}
    assert page.scripts == 0


def test_tls_is_asked_for_where_it_was_used(api: ApiService) -> None:
    response = api.client().get("/", base_url="https://example.com")

    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_only_a_trusted_proxy_s_word_makes_a_request_one_over_tls(database_url: str, api: ApiService) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    with api_service(database_url, trusted_proxies=1) as behind_proxy:
        trusted = behind_proxy.client().get("/", headers=headers)
    untrusted = api.client().get("/", headers=headers)

    assert "Strict-Transport-Security" in trusted.headers
    assert "Strict-Transport-Security" not in untrusted.headers


def test_browser_at_an_unknown_address_gets_a_page_and_a_program_a_problem(api: ApiService) -> None:
    for_browser = api.client().get("/nowhere", headers=PAGE)
    for_program = api.client().get("/nowhere")

    assert (for_browser.status_code, for_browser.mimetype) == (404, "text/html")
    assert (for_program.status_code, for_program.mimetype) == (404, "application/problem+json")
