"""Secrets and signatures of webhooks, as the Standard Webhooks specification 1.0 defines them."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


def new_secret() -> str:
    """Return a random secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")


def signature(signing_secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the webhook-signature header: one signature for each secret, separated by blanks.

    Raises:
        ValueError: a secret is not base64 after its prefix.

    """
    signed = f"{message_id}.{timestamp}.".encode("ascii") + body
    return " ".join(f"v1,{_hmac(secret, signed)}" for secret in signing_secrets)


def _hmac(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        # Without the cause, whose traceback could show the secret.
        raise ValueError("a webhook secret has to be whsec_ and base64") from None
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")
