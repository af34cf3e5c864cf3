"""The signup form as a browser without JavaScript uses it."""

from urllib.parse import urljoin

import pytest

from tests.api.accounts.routes.steps import VERIFY, fill_in
from tests.html_page import Page
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service


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
        request = {**ALICE, "password": "14 characters!"}
        page = Page(client.post("/", data=request, headers=PAGE))
        answer = client.post("/v1/users", json=request)
        taken = client.post("/v1/users", json={**ALICE, "password": "15 characters!!"})

    assert "15 to 128 characters" in form
    assert (rule["minLength"], rule["maxLength"], rule["description"][:9]) == (15, 128, "15 to 128")
    assert page.texts["password-error"] == "Use at least 15 characters."
    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "password")
    assert taken.status_code == 201


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


def test_browser_at_an_unknown_address_gets_a_page_and_a_program_a_problem(api: ApiService) -> None:
    for_browser = api.client().get("/nowhere", headers=PAGE)
    for_program = api.client().get("/nowhere")

    assert (for_browser.status_code, for_browser.mimetype) == (404, "text/html")
    assert (for_program.status_code, for_program.mimetype) == (404, "application/problem+json")
