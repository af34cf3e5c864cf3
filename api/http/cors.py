"""Cross-origin requests: which sites' pages may read the responses of `/v1/*` (CORS)."""

import re
from collections.abc import Sequence
from typing import Final

from flask import Flask
from flask_cors import CORS

from api.http.request_ids import REQUEST_ID_HEADER

PREFLIGHT_SECONDS: Final = 7200
"""How long a browser may cache the preflight response. Browsers cap it at a day or less."""

_ASKED_WITH: Final = ("Authorization", "Content-Type", REQUEST_ID_HEADER, "traceparent", "tracestate")
_READ: Final = ("RateLimit", "RateLimit-Policy", "Retry-After", REQUEST_ID_HEADER)


def allow_origins(app: Flask, origins: Sequence[str], headers: Sequence[str]) -> None:
    """Allow the pages of these sites to call `/v1/*` and read the responses, without cookies.

    Browsers may still send other requests, but no page of another site can read their responses.

    Args:
        app: the application.
        origins: the sites; none to allow no site.
        headers: headers that a request may have in addition to the usual ones.

    """
    if not origins:
        return
    CORS(
        app,
        resources=re.compile("/v1/"),
        # flask-cors would treat the brackets of an IPv6 address as a regular expression.
        origins=[re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in origins],
        methods=["GET", "HEAD", "POST"],
        allow_headers=[*_ASKED_WITH, *headers],
        expose_headers=list(_READ),
        max_age=PREFLIGHT_SECONDS,
        supports_credentials=False,
        always_send=False,
        # after_request also sees the responses to errors.
        intercept_exceptions=False,
    )
