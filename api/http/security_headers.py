"""What every answer tells the browser that it may not do."""

from typing import Final

from flask import Response, request

# No script at all, nothing from anywhere else, and no frame around it.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FIXED: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
_ONE_YEAR_SECONDS: Final = 365 * 24 * 3600


def add_security_headers(response: Response) -> Response:
    """Every answer is about one user at one moment: none is for a cache, and none is what its type does not say.

    No address of ours leaves in a Referer header: those of links hold their codes.
    """
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.extend(_FIXED)
    # The console allows itself a script of its own.
    headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
    if request.is_secure:
        headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR_SECONDS}"
    return response
