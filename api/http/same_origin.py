"""Forms are taken from our own pages alone.

A foreign page could make its visitors sign up, from their addresses, or use the cookie that shows whose account is
meant. The browser itself says where a form comes from, so no token is needed.
"""

from typing import Final

from flask import Request

from api.http.problems import ProblemError

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def refuse_foreign_forms(request: Request) -> None:
    """Raise ProblemError for a form that another site has sent.

    `Sec-Fetch-Site` is what browsers send over TLS and on the own machine. Elsewhere there is `Origin`, which our own
    pages send as "null", since they keep their address to themselves (Referrer-Policy): it is believed there. A
    program sends neither.
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
