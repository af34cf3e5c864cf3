"""Browsers of other sites: which of them may read what `/v1/*` answers (CORS)."""

import re
from collections.abc import Sequence
from typing import Final

from flask import Flask
from flask_cors import CORS

from api.http.request_ids import REQUEST_ID_HEADER

PREFLIGHT_SECONDS: Final = 7200
"""How long a browser may keep the answer to its question whether it may ask; none keeps it for longer than a day."""

_ASKED_WITH: Final = ("Authorization", "Content-Type", REQUEST_ID_HEADER, "traceparent", "tracestate")
_READ: Final = ("RateLimit", "RateLimit-Policy", "Retry-After", REQUEST_ID_HEADER)


def allow_origins(app: Flask, origins: Sequence[str], headers: Sequence[str]) -> None:
    """Let the pages of these sites call `/v1/*` and read the answers, without cookies; no site where none is named.

    They may send these headers beside those that every request may have.

    Whatever is not allowed, a browser may still send, but no page of another site reads what is answered.
    """
    if not origins:
        return
    CORS(
        app,
        resources=re.compile("/v1/"),
        # flask-cors would take the brackets of an IPv6 address for a regular expression.
        origins=[re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in origins],
        methods=["GET", "HEAD", "POST"],
        allow_headers=[*_ASKED_WITH, *headers],
        expose_headers=list(_READ),
        max_age=PREFLIGHT_SECONDS,
        supports_credentials=False,
        always_send=False,
        # after_request sees the answers to errors as well.
        intercept_exceptions=False,
    )
