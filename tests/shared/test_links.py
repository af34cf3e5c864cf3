import string

import pytest

from shared.links import is_authentic, sign, verification_link

OLD, NEW = "o" * 32, "n" * 32
EMAIL = "alice@example.com"


def test_a_code_is_authentic_for_its_record_and_address_alone() -> None:
    code = sign([NEW], 7, EMAIL)

    assert is_authentic([NEW], 7, EMAIL, code)
    assert not is_authentic([NEW], 8, EMAIL, code)
    assert not is_authentic([NEW], 7, "bob@example.com", code)


def test_every_changed_character_makes_a_code_worthless() -> None:
    code = sign([NEW], 7, EMAIL)
    alphabet = string.ascii_letters + string.digits + "-_"

    altered = [code[:at] + char + code[at + 1 :] for at in range(len(code)) for char in alphabet if char != code[at]]

    assert not any(is_authentic([NEW], 7, EMAIL, each) for each in altered)


@pytest.mark.parametrize("code", ["", "x", "é" * 43, "\ud800", " "])
def test_nonsense_is_not_authentic(code: str) -> None:
    assert not is_authentic([NEW], 7, EMAIL, code)


def test_the_first_key_signs_and_all_verify() -> None:
    by_old_key = sign([OLD], 7, EMAIL)

    assert sign([NEW, OLD], 7, EMAIL) == sign([NEW], 7, EMAIL)
    assert is_authentic([NEW, OLD], 7, EMAIL, by_old_key)
    assert not is_authentic([NEW], 7, EMAIL, by_old_key)


def test_the_link_holds_nothing_readable() -> None:
    link = verification_link("https://bank.example", 7, sign([NEW], 7, EMAIL))

    assert link.startswith("https://bank.example/v1/verify_email?email_id=7&secret_code=")
    assert "alice" not in link
