"""A mail server's answer goes into the outbox and the log: without the recipient, and short."""

import io
from time import process_time

import pytest

from shared.smtp.replies import MOST_BYTES, MOST_LINES, Reply, quoted, read_reply

SECONDS = 2.0
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
    assert quoted(550, answer.encode(), ADDRESS) == kept


@pytest.mark.parametrize(
    ("answer", "local_part"),
    [("5.7.1 malice is refused", "alice"), ("unalice alice-like alice_x alice+x", "alice"), ("x.y said no", "y")],
)
def test_words_that_only_contain_the_local_part_stay(answer: str, local_part: str) -> None:
    assert quoted(550, answer, f"{local_part}@example.com") == f"550 {answer}"


def test_a_local_part_with_special_characters_is_taken_literally() -> None:
    assert quoted(550, b"unknown: a+b.*c", "a+b.*c@example.com") == "550 unknown: [address]"


def test_control_characters_and_line_ends_become_one_blank() -> None:
    assert quoted(451, b"first\nsecond\r\n\x1b[31mred\x00\x07\xe2\x80\xaeend") == "451 first second [31mred end"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert quoted(451, b"\xff\xfe no") == "451 \ufffd\ufffd no"


def test_an_address_that_is_cut_by_a_control_character_is_not_kept() -> None:
    assert "example" not in quoted(550, b"alice.adams@exam\x00ple.com", ADDRESS)


def test_a_long_answer_is_cut_after_the_address_is_gone() -> None:
    kept = quoted(550, b"x" * 180 + b" " + ADDRESS.encode() + b" " + b"y" * 5000, ADDRESS)

    assert (len(kept), "alice" in kept) == (200, False)


@pytest.mark.parametrize("bad", [b"a", b"alice.", b"@", b"a@", b"alice.adams@example.com ", b"\n", b"<", b"\xff"])
def test_a_megabyte_is_quoted_in_no_time(bad: bytes) -> None:
    started = process_time()
    quoted(550, bad * (1_000_000 // len(bad)), ADDRESS)

    assert process_time() - started < SECONDS


@pytest.mark.parametrize("bad", [b"250-\n", b"250-" + b"x" * 8000 + b"\r\n", b"250-x", b"\n", b"\x00", b"25"])
def test_a_reply_is_cut_while_it_is_read(bad: bytes) -> None:
    megabyte = io.BytesIO(bad * (1_000_000 // len(bad)))
    started = process_time()
    reply = read_reply(megabyte)

    assert process_time() - started < SECONDS
    assert reply is not None
    assert megabyte.tell() <= MOST_BYTES
    assert (len(reply.text) <= MOST_BYTES, reply.text.count(b"\n") < MOST_LINES) == (True, True)


def test_a_reply_that_fits_is_not_cut() -> None:
    assert read_reply(io.BytesIO(b"250-a\r\n250-b\r\n250 c\r\nmore")) == Reply(250, b"a\nb\nc")
    assert read_reply(io.BytesIO(b"250\n")) == Reply(250, b"")
    assert read_reply(io.BytesIO(b"what?\r\n")) == Reply(-1, b"what?")
    assert read_reply(io.BytesIO(b"2_0 no number\r\n")) == Reply(-1, b"2_0 no number")


@pytest.mark.parametrize("begun", [b"", b"2", b"250", b"250 O", b"250-a\r\n", b"250-a\r\n250 b\r"])
def test_a_reply_that_ends_with_the_connection_is_none(begun: bytes) -> None:
    assert read_reply(io.BytesIO(begun)) is None
