"""The page after a signup, which sends the mail again."""

from urllib.parse import urljoin

import pytest

from tests.api.accounts.routes.steps import VERIFY, fill_in
from tests.api.accounts.steps import let_claim
from tests.html_page import Page
from tests.programs.api_service import ALICE, ApiService, api_service


def test_mail_is_sent_again_from_the_inbox_page(api: ApiService) -> None:
    client = api.client()
    client.post("/", data=ALICE)
    let_claim(api)
    form = Page(client.get("/inbox"))

    sent = client.post("/inbox", data=form.fields)
    after = client.get(urljoin("/inbox", sent.headers["Location"]))

    assert form.fields == {"email": "alice@example.com"}
    assert sent.status_code == 303
    assert "an email is on its way" in after.text
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
