from collections.abc import Iterator

import pytest
import structlog
from flask import Flask

from api.app import close, create_app
from tests.api.test_app import SETTINGS


@pytest.fixture
def app() -> Iterator[Flask]:
    app = create_app(SETTINGS)
    app.add_url_rule("/context", view_func=structlog.contextvars.get_contextvars)
    yield app
    close(app)


@pytest.mark.parametrize("given", ["0b8c1a6e-6f0f-4a52-9f0e-3c1d2b4a5f60", "01JDEXAMPLE", "Root=1-67891233-abcdef"])
def test_usable_id_of_the_client_is_returned_and_logged(app: Flask, given: str) -> None:
    response = app.test_client().get("/context", headers={"X-Request-ID": given})

    assert response.headers["X-Request-ID"] == given
    assert response.get_json() == {"request_id": given}


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, '"quoted"', "\u00e4"])
def test_other_requests_get_an_id_of_ours(app: Flask, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}

    ids = {app.test_client().get("/context", headers=headers).headers["X-Request-ID"] for _ in range(2)}

    assert len(ids) == 2
    assert given not in ids


@pytest.mark.parametrize("path", ["/nowhere", "/v1/users", "/readyz", "/"])
def test_every_answer_has_one(app: Flask, path: str) -> None:
    assert app.test_client().get(path).headers["X-Request-ID"]
