"""A mail server's answer goes into the outbox and the log: without the recipient, and short."""

import pytest

from consumer.smtp import _scrubbed

ADDRESS = "alice.adams@example.com"


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("5.1.1 <alice.adams@example.com>: unknown", "550 5.1.1 <[address]>: unknown"),
        ("5.1.1 alice.adams@example.com... no such user", "550 5.1.1 [address]... no such user"),
        ("Alice.ADAMS@Example.COM is unknown", "550 [address] is unknown"),
        ("no mailbox alice.adams here", "550 no mailbox [address] here"),
        ("no mailbox ALICE.Adams", "550 no mailbox [address]"),
        ("no such user: alice.adams.", "550 no such user: [address]."),
        ("no such user 'alice.adams'", "550 no such user '[address]'"),
        ("user=alice.adams;", "550 user=[address];"),
        ("ask postmaster@example.org or HELP@EXAMPLE.ORG", "550 ask [address] or [address]"),
        ("relay for alice.adams%example.com@example.net denied", "550 relay for [address] denied"),
    ],
)
def test_no_address_is_kept_in_whatever_form_it_comes(answer: str, kept: str) -> None:
    assert _scrubbed(550, answer.encode(), ADDRESS) == kept


@pytest.mark.parametrize(
    ("answer", "local_part"),
    [("5.7.1 malice is refused", "alice"), ("unalice alice-like alice_x alice+x", "alice"), ("x.y said no", "y")],
)
def test_words_that_only_contain_the_local_part_stay(answer: str, local_part: str) -> None:
    assert _scrubbed(550, answer, f"{local_part}@example.com") == f"550 {answer}"


def test_a_local_part_with_special_characters_is_taken_literally() -> None:
    assert _scrubbed(550, b"unknown: a+b.*c", "a+b.*c@example.com") == "550 unknown: [address]"


def test_control_characters_and_line_ends_become_one_blank() -> None:
    assert _scrubbed(451, b"first\nsecond\r\n\x1b[31mred\x00\x07\xe2\x80\xaeend") == "451 first second [31mred end"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert _scrubbed(451, b"\xff\xfe no") == "451 \ufffd\ufffd no"


def test_an_address_that_is_cut_by_a_control_character_is_not_kept() -> None:
    assert "example" not in _scrubbed(550, b"alice.adams@exam\x00ple.com", ADDRESS)


def test_a_long_answer_is_cut_after_the_address_is_gone() -> None:
    kept = _scrubbed(550, b"x" * 180 + b" " + ADDRESS.encode() + b" " + b"y" * 5000, ADDRESS)

    assert (len(kept), "alice" in kept) == (200, False)
