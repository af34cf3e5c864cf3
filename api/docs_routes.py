"""GET /openapi.json, and GET /docs, which shows it to a person."""

import json
from functools import cache
from typing import Any

from flask import Blueprint, Response

from api.openapi import build_document
from api.pages import page


def docs_blueprint() -> Blueprint:
    """Build both addresses. The document is put together at the first request for either."""
    blueprint = Blueprint("docs", __name__)

    @blueprint.get("/openapi.json")
    def document() -> Response:
        return Response(_text(), mimetype="application/json")

    @blueprint.get("/docs")
    def docs() -> Response:
        return page("docs.html", document=_document(), resolve=_resolve, as_json=_indented)

    return blueprint


@cache
def _document() -> dict[str, Any]:
    return build_document()


@cache
def _text() -> str:
    return json.dumps(_document(), ensure_ascii=False)


def _resolve(part: dict[str, Any]) -> dict[str, Any]:
    """Give what a reference of the document refers to, or the part itself."""
    found: Any = part
    while "$ref" in found:
        steps = found["$ref"].removeprefix("#/").split("/")
        found = _document()
        for step in steps:
            found = found[step]
    return dict(found)


def _indented(example: object) -> str:
    return json.dumps(example, ensure_ascii=False, indent=2)
