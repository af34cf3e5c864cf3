"""Signatures, verified by the published library."""

from time import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.webhooks.signing import new_secret, signature

ID = "0b6fd2b5-36a3-4a7c-8f0b-5dbd3bd7fd5c"
BODY = '{"data":"Grüße"}'.encode()


def headers(*secrets: str) -> dict[str, str]:
    now = int(time())
    return {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": signature(secrets, ID, now, BODY)}


def test_the_published_library_verifies_each_of_several_signatures() -> None:
    former, present, other = new_secret(), new_secret(), new_secret()
    sent = headers(present, former)

    for secret in (former, present):
        assert Webhook(secret).verify(BODY, sent) == {"data": "Grüße"}
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(present).verify(BODY + b" ", sent)


def test_a_secret_is_random_and_has_the_prescribed_form() -> None:
    first, second = new_secret(), new_secret()

    assert first != second
    assert first.startswith("whsec_")
    assert len(first) == len("whsec_") + 44


def test_a_malformed_secret_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="whsec_ and base64") as caught:
        signature(["whsec_not base64"], ID, 1, BODY)
    assert "not base64" not in str(caught.value)
