"""What other sites can do with the pages: forms, frames, scripts and plain HTTP."""

from urllib.parse import urljoin

import pytest

from tests.html_page import Page
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service


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
