"""GET /openapi.json, and GET /docs, which shows the document as a page."""

import json
from functools import cache
from typing import Any

from flask import Blueprint, Response

from api.accounts.routes.schemas import SignUpSchema
from api.http.pages import page
from api.openapi.document import build_document


def docs_blueprint(signup_schema: SignUpSchema) -> Blueprint:
    """Build both routes. The document is built at the first request.

    Args:
        signup_schema: the schema of a signup.

    """
    blueprint = Blueprint("docs", __name__)
    build = cache(lambda: build_document(signup_schema))

    @blueprint.get("/openapi.json")
    def document() -> Response:
        return Response(json.dumps(build(), ensure_ascii=False), mimetype="application/json")

    @blueprint.get("/docs")
    def docs() -> Response:
        return page("docs.html", document=build(), resolve=lambda part: _resolve(build(), part), as_json=_indented)

    return blueprint


def _resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return what a `$ref` refers to, or the part itself."""
    found: Any = part
    while "$ref" in found:
        steps = found["$ref"].removeprefix("#/").split("/")
        found = document
        for step in steps:
            found = found[step]
    return dict(found)


def _indented(example: object) -> str:
    return json.dumps(example, ensure_ascii=False, indent=2)
