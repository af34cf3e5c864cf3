"""The OpenAPI document, and the page that shows it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from marshmallow import Schema, class_registry

from api.app import close, create_app
from tests.api.test_app import SETTINGS
from tests.html_page import Page
from tests.programs.api_service import PAGE


@pytest.fixture
def app() -> Iterator[Flask]:
    app = create_app(SETTINGS)
    yield app
    close(app)


def document(app: Flask) -> dict[str, Any]:
    response = app.test_client().get("/openapi.json")
    assert response.mimetype == "application/json"
    found: dict[str, Any] = response.get_json()
    return found


def operations(app: Flask) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document(app)["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def schema_of(content: dict[str, Any]) -> Schema:
    found = class_registry.get_class(content["schema"]["$ref"].rpartition("/")[2] + "Schema")
    assert isinstance(found, type)
    return found()


def test_document_is_valid_openapi_3_1(app: Flask) -> None:
    found = document(app)

    assert found["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(found).validate()


def test_every_address_for_programs_is_in_the_document(app: Flask) -> None:
    described = {(path, method) for path, method, _ in operations(app)}

    routes = {
        (rule.rule, method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(("/v1/", "/healthz", "/readyz"))
    }
    assert routes == described


def test_every_answer_has_an_example_that_its_schema_allows(app: Flask) -> None:
    for _, _, operation in operations(app):
        for status, answer in operation["responses"].items():
            for kind, content in answer["content"].items():
                assert content["examples"]
                for example in content["examples"].values():
                    assert schema_of(content).validate(example["value"]) == {}
                    assert status < "400" or str(example["value"]["status"]) == status
                assert kind == ("application/json" if status < "400" else "application/problem+json")


def test_every_body_has_an_example_that_its_schema_allows(app: Flask) -> None:
    bodies = [operation["requestBody"] for _, _, operation in operations(app) if "requestBody" in operation]

    assert len(bodies) == 4
    for content in (content for body in bodies for content in body["content"].values()):
        assert [schema_of(content).validate(each["value"]) for each in content["examples"].values()] == [{}]


def test_page_shows_every_operation_and_every_answer(app: Flask) -> None:
    page = Page(app.test_client().get("/docs", headers=PAGE))

    for path, method, operation in operations(app):
        assert f"{method.upper()} {path}" in page.text
        assert operation["summary"] in page.text
        for answer in operation["responses"].values():
            assert answer["description"] in page.text


def test_page_needs_no_script_and_nothing_from_elsewhere(app: Flask) -> None:
    page = Page(app.test_client().get("/docs", headers=PAGE))

    assert page.scripts == 0
    assert set(page.loaded) == {"static/icon.svg", "static/docs.css"}
