"""What a refusal says, by its enhanced status code: the table of docs/concepts/smtp.md."""

import pytest

from consumer.mail.reply_codes import Refusal, enhanced_code, is_about_recipient, policy_code, refusal

FOR_GOOD, THIS_MAIL, POLICY = Refusal.FOR_GOOD, Refusal.OF_THIS_MAIL, Refusal.BY_POLICY
SENDER, BUSY, UNKNOWN = Refusal.OF_OUR_SENDER, Refusal.OF_A_BUSY_SERVER, Refusal.WITHOUT_A_REASON


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        ("550 5.1.1 no such user", FOR_GOOD),
        ("550 5.1.2 no such domain", FOR_GOOD),
        ("553 5.1.3 bad syntax", FOR_GOOD),
        ("551 5.1.6 moved", FOR_GOOD),
        ("556 5.1.10 null MX", FOR_GOOD),
        ("550 5.1.0 address rejected", FOR_GOOD),
        ("553 5.1.7 bad sender", SENDER),
        ("550 5.1.8 sender's domain", SENDER),
        ("450 4.1.8 sender's domain not found", SENDER),
        ("450 4.1.1 unknown for now", THIS_MAIL),
        ("450 4.2.0 greylisted", THIS_MAIL),
        ("452 4.2.2 full", THIS_MAIL),
        ("550 5.2.1 gets too much", THIS_MAIL),
        ("552 5.2.2 full", THIS_MAIL),
        ("452 4.3.1 insufficient system storage", BUSY),
        ("552 5.3.4 too big", FOR_GOOD),
        ("554 5.3.2 not accepting", POLICY),
        ("452 4.4.5 congestion", BUSY),
        ("550 5.4.1 access denied", FOR_GOOD),
        ("452 4.5.3 too many recipients", BUSY),
        ("554 5.5.1 protocol error", POLICY),
        ("550 5.5.0 mailbox unavailable", FOR_GOOD),
        ("451 4.6.0 conversion", THIS_MAIL),
        ("554 5.6.0 bad content", FOR_GOOD),
        ("450 4.7.1 too much mail", BUSY),
        ("554 5.7.1 relay access denied", POLICY),
        ("550 5.7.26 unauthenticated", POLICY),
        ("550 5.7.27 sender has a null MX", POLICY),
        ("450 later", UNKNOWN),
        ("421 closing", UNKNOWN),
        ("432 too many at once", BUSY),
        ("550 no", FOR_GOOD),
        ("550 5.0.0 no", FOR_GOOD),
        ("450 4.0.0 no", UNKNOWN),
    ],
)
def test_a_refusal_is_about_what_its_code_says(reply: str, meaning: Refusal) -> None:
    assert refusal(int(reply[:3]), reply[4:].encode()) is meaning


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (550, b"5.1.1 no", "5.1.1"),
        (550, b"5.1.1", "5.1.1"),
        (550, b"5.1.1\n5.1.1 no", "5.1.1"),
        (550, b"5.01.001 no", "5.1.1"),
        (550, b"4.1.1 a class that contradicts", None),
        (550, b"<bob>: 5.1.1 not at the beginning", None),
        (550, b"5.1.1: no", None),
        (550, b"5.1.1000 no", None),
        (550, b"5.1.1.1 an address", None),
        (550, b"", None),
    ],
)
def test_an_enhanced_code_stands_at_the_beginning(code: int, text: bytes, enhanced: str | None) -> None:
    assert enhanced_code(code, text) == enhanced


def test_only_a_refusal_by_policy_has_a_policy_code() -> None:
    assert policy_code(554, b"5.7.1 no") == "5.7.1"
    assert policy_code(450, b"4.7.1 no") is None
    assert policy_code(550, b"5.1.1 no") is None


@pytest.mark.parametrize("text", [b"5.1.1 no", b"5.1.2 no", b"5.1.3 no", b"5.1.6 no", b"5.1.10 no"])
def test_a_recipient_that_does_not_exist_is_named_by_its_code(text: bytes) -> None:
    assert is_about_recipient(550, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [(550, b"no such user"), (550, b"5.1.0 no"), (550, b"5.2.1 no"), (450, b"4.1.1 not yet"), (550, b"4.1.1 not yet")],
)
def test_other_refusals_are_not_about_the_recipient_for_good(code: int, text: bytes) -> None:
    assert not is_about_recipient(code, text)
