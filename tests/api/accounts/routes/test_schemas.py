from collections.abc import Mapping

import pytest

from api.accounts.routes.schemas import SignUpSchema, load
from api.accounts.signup import SignUpRequest
from api.http.problems import ProblemError

ALICE = {"username": "alice", "full_name": "Alice Adams", "email": "alice@example.com", "password": "correct horse"}


def check(**changes: object) -> SignUpRequest:
    request: SignUpRequest = load(SignUpSchema(), {**ALICE, **changes})
    return request


def refusal(body: Mapping[str, object]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        load(SignUpSchema(), body)
    return caught.value


def refused_fields(**changes: object) -> list[str]:
    return [error.field for error in refusal({**ALICE, **changes}).errors]


@pytest.mark.parametrize("username", ["abc", "a_1", "_" * 3, "0" * 100])
def test_username_of_small_letters_digits_and_underscores_is_taken(username: str) -> None:
    assert username == check(username=username).username


@pytest.mark.parametrize(
    "username",
    [
        "",
        "ab",
        "a" * 101,
        "Alice",
        "al ice",
        "alice\n",
        "\nalice",
        "al-ice",
        "älice",
        "\u0430lice",
        "a\u0661bc",
        "al\x00ice",
    ],
)
def test_any_other_username_is_refused(username: str) -> None:
    assert {"username"} == set(refused_fields(username=username))


@pytest.mark.parametrize(
    "full_name",
    [
        "X",
        "Ünal Œ'Brien-Nguyễn",
        "שלום עולם",
        "\u0645\u062d\u0645\u062f\u200c\u0631\u0636\u0627",
        "𠮷野家",
        "🎉",
        "é" * 100,
        "𠮷" * 100,
        "क्षि",
        "\u200fאב\u200e",
    ],
)
def test_full_name_of_any_script_is_taken_as_it_is(full_name: str) -> None:
    assert full_name == check(full_name=full_name).full_name


@pytest.mark.parametrize("character", [*map(chr, [*range(0x20), 0x7F, 0x85, 0x9F, 0x2028, 0x2029, 0xD800, 0xDFFF])])
def test_control_characters_and_surrogates_are_refused_in_a_full_name(character: str) -> None:
    assert refused_fields(full_name=f"Alice{character}Adams") == ["full_name"]


@pytest.mark.parametrize("character", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_what_turns_the_direction_of_the_text_after_a_name_is_refused(character: str) -> None:
    assert refused_fields(full_name=f"Alice{character}Adams") == ["full_name"]


@pytest.mark.parametrize("full_name", ["", " ", "\u00a0\u3000", "\u200b\u200d", "\u3164", "\u2800", "\u0301"])
def test_full_name_that_shows_nothing_is_refused(full_name: str) -> None:
    assert refused_fields(full_name=full_name) == ["full_name"]


def test_full_name_longer_than_100_characters_is_refused() -> None:
    assert refused_fields(full_name="é" * 101) == ["full_name"]


@pytest.mark.parametrize(
    ("email", "kept"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice+tag@EXAMPLE.com", "Alice+tag@example.com"),
        ("alice@bücher.test", "alice@xn--bcher-kva.test"),
        ("alice@BÜCHER.test", "alice@xn--bcher-kva.test"),
        ("alice@mail.test", "alice@mail.test"),
        (" alice@example.com", "alice@example.com"),
        ("alice@example.com\t ", "alice@example.com"),
        ("alice@example.com\n", "alice@example.com"),
        ("\u00a0alice@example.com\u3000", "alice@example.com"),
        ("al=ice?@example.com", "al=ice?@example.com"),
        (f"{' ' * 300}alice@example.com", "alice@example.com"),
        (
            f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example",
            f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example",
        ),
    ],
)
def test_address_is_kept_with_its_domain_in_idna_form(email: str, kept: str) -> None:
    assert kept == check(email=email).email


@pytest.mark.parametrize(
    "email",
    [
        "",
        "alice",
        "alice@",
        "@example.com",
        "alice@@example.com",
        "alice@bob@example.com",
        "Alice <alice@example.com>",
        '"alice"@example.com',
        " ",
        "alice @example.com",
        "alice@ example.com",
        "=?utf-8?q?x?=@example.com",
        "al=?ice@example.com",
        "alice@example.com\r\nBcc: bob@example.com",
        "al\x00ice@example.com",
        "alice@exa\x00mple.com",
        "alice@localhost",
        "alice@test",
        "alice@[127.0.0.1]",
        ".alice@example.com",
        "al..ice@example.com",
        "älice@example.com",
        "\ud800@example.com",
        "alice@\ud800.com",
        "alice@exa mple.com",
        "alice,bob@example.com",
        "alice\uff20example.com",
        f"{'a' * 243}@example.com",
        f"alice@{'ü' * 60}.example",
    ],
)
def test_what_is_not_one_plain_address_is_refused(email: str) -> None:
    assert refused_fields(email=email) == ["email"]


@pytest.mark.parametrize("password", ["8 chars!", "p" * 128, "пароль пароль", "🔑" * 8, " " * 8])
def test_password_of_8_to_128_characters_is_taken(password: str) -> None:
    assert password == check(password=password).password


@pytest.mark.parametrize("password", ["p" * 129, "8 chars\x00", "8 chars\n", "8 chars\ud800"])
def test_what_no_account_can_have_as_a_password_is_refused(password: str) -> None:
    assert refused_fields(password=password) == ["password"]


@pytest.mark.parametrize("password", ["", "7 chars", "password123", "alice2026!"])
def test_weak_password_is_for_no_new_account(password: str) -> None:
    """An older account may have such a password and be found by it."""
    assert check(password=password).weakness is not None
    assert check().weakness is None


def test_length_of_a_password_is_a_setting() -> None:
    requests: list[SignUpRequest] = [
        load(SignUpSchema(15), {**ALICE, "password": password}) for password in ("14 characters!", "15 characters!!")
    ]

    assert [request.weakness for request in requests] == ["Use at least 15 characters.", None]


@pytest.mark.parametrize("password", ["short", "password123", "alice2026!"])
def test_weak_password_is_named_beside_other_fields(password: str) -> None:
    assert refused_fields(full_name="", email="nobody", password=password) == ["full_name", "email", "password"]
    assert refused_fields(password=password, unknown=1) == ["password", "unknown"]


def test_password_made_of_a_name_that_is_refused_itself_is_not_compared_with_it() -> None:
    assert refused_fields(username="Alice!", email="nobody", password="alice!alice!") == ["username", "email"]  # noqa: S106


@pytest.mark.parametrize("value", [None, True, 12345678, 1.5, ["alice"], {"a": "b"}])
@pytest.mark.parametrize("field", ["username", "full_name", "email", "password"])
def test_only_a_string_is_a_string(field: str, value: object) -> None:
    assert [field] == refused_fields(**{field: value})


def test_every_missing_field_is_named_at_once() -> None:
    problem = refusal({})

    assert problem.status == 422
    assert [error.field for error in problem.errors] == ["username", "full_name", "email", "password"]


def test_unknown_fields_are_named_beside_invalid_ones() -> None:
    assert refused_fields(username=1, email="x", **{"is_email_verified": True, "~/": 1}) == [
        "username",
        "email",
        "is_email_verified",
        "~/",
    ]


@pytest.mark.parametrize(
    ("field", "pointer"), [("~/", "#/~0~1"), ("a b%é", "#/a%20b%25%C3%A9"), ("", "#/"), ("\ud800", "#/%3F")]
)
def test_pointer_escapes_the_name_of_a_field(field: str, pointer: str) -> None:
    [error] = refusal({**ALICE, field: 1}).errors

    assert error.as_json() == {"field": field, "pointer": pointer, "detail": "Unknown field: remove it."}


def test_no_message_repeats_what_was_sent() -> None:
    secrets = {"username": "Sesame!", "full_name": "Sesame\n", "email": "sesame@sesame@sesame", "password": "sesame"}

    details = " ".join(error.detail for error in refusal(secrets).errors)

    assert "sesame" not in details.lower()


def test_password_is_not_in_the_text_of_a_wish() -> None:
    assert "correct horse" not in repr(check())
