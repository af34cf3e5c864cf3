"""Make and check the link that verifies an address, and its signature.

`secret_code` is the signature over the verification record's id and address. So the URL contains nothing readable, the
database contains no code that could be stolen, and every retry of a message has the same link.
"""

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlencode

from itsdangerous import Signer

_SALT = "outbox-signup.verify-email"
VERIFY_PATH = "/v1/verify_email"


def sign(secret_keys: Sequence[str], record_id: int, email: str) -> str:
    """Return the secret code of a record, signed with the first key."""
    return _signature(secret_keys[0], record_id, email)


def is_authentic(secret_keys: Sequence[str], record_id: int, email: str, secret_code: str) -> bool:
    """Return whether the code was signed with any of the keys for this record and address.

    The texts are compared, not the decoded bytes: decoding ignores some bits of the last character of an unpadded
    base64 text, and a link with one changed character must not be valid.
    """
    given = secret_code.encode("utf-8", "replace")
    codes = [_signature(key, record_id, email).encode("ascii") for key in secret_keys]
    return any([hmac.compare_digest(code, given) for code in codes])  # noqa: C419 - no early end: constant time


def verification_link(base_url: str, record_id: int, secret_code: str) -> str:
    """Return the URL of the mail's button."""
    return f"{base_url}{VERIFY_PATH}?{urlencode({'email_id': record_id, 'secret_code': secret_code})}"


def _signature(secret_key: str, record_id: int, email: str) -> str:
    signer = Signer(secret_key, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    return signer.get_signature(f"{record_id}:{email}").decode("ascii")
