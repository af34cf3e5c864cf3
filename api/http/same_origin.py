"""Accept forms only from our own pages.

A page of another site could make its visitors sign up from their own IP addresses, or use the cookie that identifies
their account. Browsers say where a form comes from, so no token is needed.
"""

from typing import Final

from flask import Request

from api.http.problems import ProblemError

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def refuse_foreign_forms(request: Request) -> None:
    """Raise ProblemError if another site sent the form.

    Browsers send `Sec-Fetch-Site` over TLS and to localhost. Elsewhere they send `Origin`, which is "null" for our own
    pages because of their Referrer-Policy, so "null" is accepted there. Programs send neither.
    """
    if request.method in _SAFE_METHODS:
        return
    if site := request.headers.get("Sec-Fetch-Site"):
        is_ours = site in _OWN_SITES
    else:
        origin = request.headers.get("Origin", "null")
        is_ours = origin in {"null", f"http://{request.host}", f"https://{request.host}"}
    if not is_ours:
        raise ProblemError(403, "This form was sent from another site. Open the page here and fill it in.")
