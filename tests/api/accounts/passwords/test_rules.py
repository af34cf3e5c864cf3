"""Passwords that attackers try first."""

import gzip
import hashlib
import re
from importlib.resources import files
from time import perf_counter

import pytest

from api.accounts.passwords.common import common_passwords, is_common
from api.accounts.passwords.rules import COMMON, MADE_OF_NAMES, refusal_reason
from api.app import close, create_app
from tests.api.test_app import SETTINGS

DATA = files("api").joinpath("data")


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "PassWord",
        "12345678",
        "123456789",
        "987654321",
        "qwertyuiop",
        "abcdefgh",
        "11111111",
        "aaaaaaaa",
        "iloveyou1",
        "P@ssw0rd",
        "Password1",
        "letmein1",
        "1q2w3e4r",
        "trustno1",
        "administrator",
        "chocolate",
        " password ",
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
    ],
)
def test_common_password_is_refused_whatever_its_case(password: str) -> None:
    assert refusal_reason(password, "alice", "alice@example.com", shortest=8) == COMMON


@pytest.mark.parametrize(
    "password",
    [
        "alice-123",
        "Alice2026",
        "alice2026!",
        "2026-ALICE",
        "ecila2026",
        "@l1ce2026",
        "alicealice",
        "alice!!!!!!!!",
        "alice123456",
        "alicepassword",
        "a.smith+shop@mail.example.com",
        "a.smith@mail.example.com",
        "A.Smith.2026",
        "smith2026",
        "mail.example",
        "example1",
        "examplealice",
        "alice@example",
        "A_lice--2026",
    ],
)
def test_password_made_of_the_username_or_the_address_is_refused(password: str) -> None:
    assert refusal_reason(password, "alice", "a.smith+shop@mail.example.com", shortest=8) == MADE_OF_NAMES


@pytest.mark.parametrize("password", ["bob-12345", "Bob!2026", "bobpassword", "b0b_b0b_b0b"])
def test_shortest_username_counts(password: str) -> None:
    assert refusal_reason(password, "bob", "robert@example.com", shortest=8) == MADE_OF_NAMES


@pytest.mark.parametrize(
    "password",
    [
        "correct horse",
        "alice in wonderland",
        "example of a long sentence",
        "common horse",
        "8 chars!",
        "пароль пароль",
        "🔑" * 8,
        " " * 8,
        "p" * 128,
        "xkq7#vz2",
        "#$%&/()=",
    ],
)
def test_other_password_is_taken_whatever_it_is_made_of(password: str) -> None:
    assert refusal_reason(password, "alice", "alice@example.com", shortest=8) is None


def test_what_is_not_known_is_not_compared() -> None:
    assert [refusal_reason("alice2026!", *names, shortest=8) for names in (("", ""), ("bob", ""), ("", "bob@"))] == [
        None
    ] * 3


@pytest.mark.parametrize("password", ["", "\n", "password\npassword", "pass", "word"])
def test_only_whole_lines_are_on_the_list(password: str) -> None:
    assert not is_common(password)


def test_every_word_of_the_list_is_found_and_their_readme_counts_them() -> None:
    text = gzip.decompress(DATA.joinpath("common_passwords.txt.gz").read_bytes())
    readme = DATA.joinpath("README.md").read_text()

    words = text.decode().splitlines()

    assert all(map(is_common, words))
    assert re.search(r"^([0-9,]+) passwords", readme, re.MULTILINE)[1] == f"{len(words):,}"  # type: ignore[index]
    assert hashlib.sha256(text).hexdigest() in readme


def test_list_is_read_before_the_first_signup() -> None:
    common_passwords.cache_clear()

    close(create_app(SETTINGS))

    assert common_passwords.cache_info().currsize == 1


def test_a_lookup_takes_no_time_beside_the_hash() -> None:
    """The hash takes 20 ms."""
    refusal_reason("correct horse", "alice", "alice@example.com", shortest=8)
    passwords = ["correct horse", "1" * 127, "alice" * 25, "ssssssssss", "!|" * 64]

    began = perf_counter()
    for _ in range(20):
        for password in passwords:
            refusal_reason(password, "alice_smith", "alice.smith+shop@mail.example.com", shortest=8)

    assert (perf_counter() - began) / 100 < 0.002
