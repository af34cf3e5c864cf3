from collections.abc import Iterator
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from api.app import close, create_app
from shared.settings.api import ApiSettings
from tests.api.accounts.steps import let_claim, welcomes
from tests.html_page import Page
from tests.programs.api_service import KEY, OLD_KEY, PAGE, ApiService, api_service

PATH = "/v1/verify_email"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up."""
    with api_service(database_url) as service:
        service.sign_up()
        yield service


def test_browser_is_shown_one_button_and_nothing_changes(api: ApiService) -> None:
    link = api.link(api.record())

    response = api.client().get(link, headers=PAGE)

    page = Page(response)
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert (len(page.forms), page.buttons) == (1, 1)
    assert not api.is_verified()
    assert welcomes(api) == []


def test_button_posts_what_the_link_held_and_verifies(api: ApiService) -> None:
    link = api.link(api.record())
    page = Page(api.client().get(link, headers=PAGE))
    [form] = page.forms

    response = api.client().post(urljoin(link, form["action"]), data=page.fields, headers=PAGE)

    assert form["method"] == "post"
    in_link = {name: value for name, [value] in parse_qs(urlsplit(link).query).items()}
    assert page.fields == {**in_link, "account": "alice"}
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert "verified" in Page(response).text
    assert api.is_verified()
    assert welcomes(api) == ["alice"]


def test_button_pressed_twice_shows_the_same_and_welcomes_once(api: ApiService) -> None:
    link = api.link(api.record())
    form = Page(api.client().get(link, headers=PAGE)).fields

    pages = [Page(api.client().post(PATH, data=form, headers=PAGE)).text for _ in range(2)]

    assert pages[0] == pages[1]
    assert welcomes(api) == ["alice"]


def test_link_opened_after_its_use_shows_no_button(api: ApiService) -> None:
    link = api.link(api.record())
    api.client().post(link)

    response = api.client().get(link, headers=PAGE)

    assert response.status_code == 200
    assert Page(response).buttons == 0
    assert "verified" in Page(response).text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_expired_altered_and_incomplete_links_have_pages_of_their_own(api: ApiService, method: str) -> None:
    links = [api.link(api.record(life="-1 second")), api.link(api.record(), key=OLD_KEY), f"{PATH}?email_id=1"]

    responses = [api.client().open(link, method=method, headers=PAGE) for link in links]

    assert [(response.status_code, response.mimetype) for response in responses] == [
        (410, "text/html"),
        (404, "text/html"),
        (422, "text/html"),
    ]
    assert ["expired" in Page(response).text for response in responses] == [True, False, False]
    assert ["not valid" in Page(response).text for response in responses] == [False, True, True]
    assert [Page(response).buttons for response in responses] == [1, 0, 0]


def test_expired_link_offers_a_new_one_to_the_address_that_it_was_mailed_to(api: ApiService) -> None:
    link = api.link(api.record(life="-1 second"))
    let_claim(api)
    page = Page(api.client().get(link, headers=PAGE))
    [form] = page.forms

    response = api.client().post(urljoin(link, form["action"]), data=page.fields)

    assert page.fields == {"email": "alice@example.com", "username": "alice"}
    assert response.status_code == 303
    assert api.messages() == [("task:send_verify_email", "alice")] * 2


def test_altered_link_shows_no_address(api: ApiService) -> None:
    response = api.client().get(api.link(api.record(life="-1 second"), key=OLD_KEY), headers=PAGE)

    assert "alice" not in response.text


def test_page_of_a_link_is_not_cached(api: ApiService) -> None:
    response = api.client().get(api.link(api.record()), headers=PAGE)

    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Vary"] == "Accept"


def test_what_a_link_holds_cannot_break_out_of_the_page(api: ApiService) -> None:
    response = api.client().get(
        PATH, query_string={"email_id": "1", "secret_code": '"><script>alert(1)</script>'}, headers=PAGE
    )

    assert response.status_code == 404
    assert "<script>" not in response.text


def test_absent_postgresql_has_a_page_too() -> None:
    app = create_app(ApiSettings("postgresql://nobody@127.0.0.1:1/none", (KEY,), 0.0, 0))

    response = app.test_client().get(f"{PATH}?email_id=1&secret_code=x", headers=PAGE)
    close(app)

    assert (response.status_code, response.mimetype) == (503, "text/html")
    assert response.headers["Retry-After"] == "5"
