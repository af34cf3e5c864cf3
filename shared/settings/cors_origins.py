"""CORS_ALLOWED_ORIGINS: the sites whose pages may call the API from a browser."""

from typing import Final
from urllib.parse import urlsplit

NONE: Final = "none"
EXAMPLE: Final = "https://app.example.com,https://example.org:8443"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EVERYBODY: Final = (
    "holds *, which would let every site's pages sign people up from their visitors' addresses, each within a limit of"
    f" its own: name the sites, as in {EXAMPLE}."
)
_NO_SITE: Final = (
    f"holds null, which is the origin of every sandboxed frame and local file: name the sites, as in {EXAMPLE}."
)


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins as browsers write them: lower case, without the scheme's own port.

    Raises:
        ValueError: one is malformed; the text says how to write it.

    """
    if text.strip() == NONE:
        return ()
    return tuple(dict.fromkeys(_origin(part.strip()) for part in text.split(",")))


def _origin(text: str) -> str:
    if "*" in text:
        raise ValueError(_EVERYBODY)
    if text == "null":
        raise ValueError(_NO_SITE)
    problem = f"is not a list of origins: write them with scheme and without a path, as in {EXAMPLE}, or '{NONE}'."
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"{problem} A name with other letters is written as browsers send it, such as xn--bcher-kva.de."
        )
    rest = parts.path or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or rest or text[-1] in "?#":
        raise ValueError(problem)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}")
