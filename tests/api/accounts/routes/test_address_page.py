"""The pages after a signup, and the one that changes the address."""

from urllib.parse import urljoin

from tests.api.accounts.steps import MALLORY, RIGHT, SIGNUP, let_mails_wait, mailed
from tests.html_page import Page
from tests.programs.api_service import ALICE, PAGE, ApiService


def test_wrong_address_is_corrected_from_the_page_after_signup(api: ApiService) -> None:
    client = api.client()
    client.post("/", data=ALICE)
    inbox = client.get("/inbox", headers=PAGE)
    form = Page(client.get("/address", headers=PAGE))

    client.delete_cookie("inbox")
    without_its_cookie = Page(client.get("/address", headers=PAGE))
    sent = client.post("/address", data={"email": RIGHT}, headers=PAGE)
    after = client.get(urljoin("/address", sent.headers["Location"]), headers=PAGE)

    assert 'href="address"' in inbox.text
    assert ALICE["email"] in form.text
    assert without_its_cookie.fields == form.fields == {"email": ALICE["email"]}
    assert sent.status_code == 303
    assert RIGHT in after.text
    assert mailed(api) == ["alice", "alice"]


def test_form_that_is_filled_in_again_with_another_address_leads_to_the_correction(api: ApiService) -> None:
    client = api.client()
    api.sign_up()

    sent = client.post("/", data={**ALICE, "email": RIGHT}, headers=PAGE)
    page = Page(client.get(urljoin("/", sent.headers["Location"]), headers=PAGE))

    assert (sent.status_code, page.fields) == (303, {"email": RIGHT})


def test_address_that_cannot_be_taken_is_reported_at_the_field(api: ApiService) -> None:
    api.sign_up(**{**MALLORY, "email": "taken@example.com"})
    api.sql("UPDATE users SET is_email_verified = true")
    client = api.client()
    client.post("/", data=ALICE)

    for email, status in (("nobody", 422), ("taken@example.com", 409)):
        response = client.post("/address", data={"email": email}, headers=PAGE)
        page = Page(response)
        assert (response.status_code, page.fields) == (status, {"email": email})
        assert page.texts["email-error"]


def test_page_without_the_token_says_how_to_get_it_back(api: ApiService) -> None:
    api.sign_up()
    shown = api.client().get("/address", headers=PAGE)
    posted = api.client().post("/address", data={"email": RIGHT}, headers=PAGE)

    assert (shown.status_code, Page(shown).forms) == (200, [])
    assert "Sign up again" in shown.text
    assert posted.status_code == 401
    assert mailed(api) == ["alice"]


def test_page_after_a_signup_shows_its_state(api: ApiService) -> None:
    api.sign_up(**MALLORY)
    client = api.client()
    client.post("/", data=ALICE)
    headings = {
        "mallory": "Another account has this address",
        "alice": "Your email address is verified",
        "nobody": "Check your inbox",
    }

    for name, heading in headings.items():
        api.sql("UPDATE users SET is_email_verified = false")
        api.sql("UPDATE users SET is_email_verified = true WHERE username = %(name)s", {"name": name})
        assert f"<h1>{heading}</h1>" in client.get("/inbox", headers=PAGE).text


def test_page_says_until_when_the_mail_waits(api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])
    client = api.client()
    client.post("/", data=ALICE)

    assert "at the latest" in client.get("/inbox", headers=PAGE).text


def test_form_of_another_site_is_refused(api: ApiService) -> None:
    client = api.client()
    client.post("/", data=ALICE)

    for path in ("/address", f"{SIGNUP}/email"):
        response = client.post(path, data={"email": RIGHT}, headers={"Sec-Fetch-Site": "cross-site"})
        assert response.status_code == 403
    assert mailed(api) == ["alice"]
