"""Signing the link that verifies an address.

`secret_code` is the bare signature over the verification record's id and address. The URL therefore holds nothing
readable, the database no code that could be stolen, and every retry of a message yields the same link.
"""

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlencode

from itsdangerous import Signer

_SALT = "outbox-signup.verify-email"
VERIFY_PATH = "/v1/verify_email"


def sign(secret_keys: Sequence[str], record_id: int, email: str) -> str:
    """Give the secret code of a record, made with the first key."""
    return _signature(secret_keys[0], record_id, email)


def is_authentic(secret_keys: Sequence[str], record_id: int, email: str, secret_code: str) -> bool:
    """Tell whether the code was made by us, with any of the keys, for this record and this address.

    The texts are compared, not what they decode to: the last character of an unpadded base64 text has bits that
    decoding ignores, and a link with one character changed is not ours.
    """
    given = secret_code.encode("utf-8", "replace")
    codes = [_signature(key, record_id, email).encode("ascii") for key in secret_keys]
    return any([hmac.compare_digest(code, given) for code in codes])  # noqa: C419 - no early end: constant time


def verification_link(base_url: str, record_id: int, secret_code: str) -> str:
    """Give the address that the mail's button leads to."""
    return f"{base_url}{VERIFY_PATH}?{urlencode({'email_id': record_id, 'secret_code': secret_code})}"


def _signature(secret_key: str, record_id: int, email: str) -> str:
    signer = Signer(secret_key, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    return signer.get_signature(f"{record_id}:{email}").decode("ascii")
