"""Security headers of every response."""

from typing import Final

from flask import Response, request

# No scripts, nothing from other sites, and no framing.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FIXED: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
_ONE_YEAR_SECONDS: Final = 365 * 24 * 3600


def add_security_headers(response: Response) -> Response:
    """Forbid caching, content sniffing and framing: every response is about one user at one moment.

    Referer headers are suppressed because the URLs of links contain their codes.
    """
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.extend(_FIXED)
    # The console sets a policy of its own, which allows its script.
    headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
    if request.is_secure:
        headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR_SECONDS}"
    return response
