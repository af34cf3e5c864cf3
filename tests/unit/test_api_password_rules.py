"""Passwords that attackers try first."""

import gzip
import hashlib
import re
from dataclasses import replace
from importlib.resources import files
from time import perf_counter

import pytest

from api.app import close, create_app
from api.common_passwords import is_common
from api.password_rules import COMMON, MADE_OF_NAMES, complaint
from tests.api_service import ALICE, PAGE
from tests.unit.test_api_app import SETTINGS

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
    assert complaint(password, "alice", "alice@example.com") == COMMON


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
    assert complaint(password, "alice", "a.smith+shop@mail.example.com") == MADE_OF_NAMES


@pytest.mark.parametrize("password", ["bob-12345", "Bob!2026", "bobpassword", "b0b_b0b_b0b"])
def test_shortest_username_counts(password: str) -> None:
    assert complaint(password, "bob", "robert@example.com") == MADE_OF_NAMES


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
    assert complaint(password, "alice", "alice@example.com") is None


def test_what_is_not_known_is_not_compared() -> None:
    assert [complaint("alice2026!", *names) for names in (("", ""), ("bob", ""), ("", "bob@"))] == [None] * 3


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


def test_least_length_is_said_and_held_at_every_door() -> None:
    app = create_app(replace(SETTINGS, password_min_length=15))
    client = app.test_client()
    try:
        form = client.get("/", headers=PAGE).text
        rule = client.get("/openapi.json").json["components"]["schemas"]["SignUp"]["properties"]["password"]
        wish = {**ALICE, "password": "14 characters!"}
        page = client.post("/", data=wish, headers=PAGE)
        answer = client.post("/v1/users", json=wish)
    finally:
        close(app)

    assert "15 to 128 characters" in form
    assert (rule["minLength"], rule["maxLength"], rule["description"][:9]) == (15, 128, "15 to 128")
    assert (page.status_code, "Has to have 15 to 128 characters." in page.text) == (422, True)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "password")


def test_a_look_takes_no_time_beside_the_hash() -> None:
    """The hash takes 20 ms."""
    complaint("correct horse", "alice", "alice@example.com")
    passwords = ["correct horse", "1" * 127, "alice" * 25, "ssssssssss", "!|" * 64]

    began = perf_counter()
    for _ in range(20):
        for password in passwords:
            complaint(password, "alice_smith", "alice.smith+shop@mail.example.com")

    assert (perf_counter() - began) / 100 < 0.002
