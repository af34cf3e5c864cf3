import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.http.pages import prefers_html

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
OLD_EXPLORER = "text/html, application/xhtml+xml, */*"


def wants_page(accept: str | None) -> bool:
    headers = [] if accept is None else [("Accept", accept)]
    return prefers_html(Request(EnvironBuilder(headers=headers).get_environ()))


@pytest.mark.parametrize(
    "accept",
    [
        FIREFOX,
        CHROME,
        OLD_EXPLORER,
        "text/html",
        "TEXT/HTML",
        "text/html;level=1",
        "text/html, */*;q=0.01",
        "application/json;q=0.5, text/html",
        "text/html, application/*;q=0.9",
    ],
)
def test_page_is_for_clients_that_prefer_html(accept: str) -> None:
    assert wants_page(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "text/*",
        "application/json",
        "application/problem+json, text/html;q=0.5",
        "application/json, text/html",
        "text/html, application/json",
        "text/html;q=0.5, */*;q=0.8",
        "text/html;q=0",
        "text/html;q=0, */*;q=0",
        "image/png",
        "nonsense",
    ],
)
def test_everybody_else_gets_json(accept: str | None) -> None:
    assert not wants_page(accept)
