"""Schemas of the requests. Each error says how to fix the field, and never repeats its value."""

import re
import unicodedata
from collections.abc import Mapping, Sized
from typing import Any, Final, TypeVar

from email_validator import EmailNotValidError, validate_email
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, post_load, validates_schema
from marshmallow.validate import Length

from api.accounts.passwords.rules import LONGEST_PASSWORD, refusal_reason
from api.accounts.signup import SignUpRequest
from api.http.problems import FieldError, invalid_fields
from shared.addresses import is_mailable
from shared.settings.api import DEFAULT_PASSWORD_MIN_LENGTH

_USERNAME: Final = re.compile(r"[a-z0-9_]*")
_LONGEST_EMAIL: Final = 254
# Line and paragraph separators, and characters that change the writing direction of the text after a name in a mail.
_REFUSED_IN_NAMES: Final = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Characters that are invisible although they count as letters or symbols: the Hangul fillers and the empty Braille
# pattern.
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")

# For the OpenAPI document: the checks below, as far as JSON Schema can express them.
USERNAME_RULE: Final[Mapping[str, Any]] = {
    "pattern": "^[a-z0-9_]*$",
    "description": "3 to 100 characters: a-z, 0-9 and _.",
}
FULL_NAME_RULE: Final[Mapping[str, Any]] = {
    "format": "full-name",
    "description": "1 to 100 characters of any script on one line, at least one of them visible. No control characters,"
    " line separators or characters that change the writing direction.",
}
_EMAIL_RULE: Final[Mapping[str, Any]] = {
    "format": "email",
    "maxLength": _LONGEST_EMAIL,
    "description": "One email address: ASCII before the @, without =?; any script after it. Surrounding spaces are"
    " removed. Case does not matter.",
}
_PASSWORD_RULE: Final[Mapping[str, Any]] = {
    "format": "password",
    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
    "description": "{shortest} to {longest} characters of any script, spaces included, without control characters. Not"
    " a common password, and not made of the username or email address.",
}
_EMAIL_ID_RULE: Final[Mapping[str, Any]] = {"minLength": 1, "description": "`email_id` of the link."}
_SECRET_CODE_RULE: Final[Mapping[str, Any]] = {"minLength": 1, "description": "`secret_code` of the link."}

_MEANT_USERNAME_RULE: Final[Mapping[str, Any]] = {
    "minLength": 1,
    "description": "Where several unverified accounts have the address: the username of yours. Send its password too.",
}
_MEANT_PASSWORD_RULE: Final[Mapping[str, Any]] = {
    "format": "password",
    "minLength": 1,
    "description": "The password of that account. Five wrong passwords end the link.",
}


_SizedT = TypeVar("_SizedT", bound=Sized)


class _Text(fields.String):
    """A JSON string. Other types are not converted."""

    default_error_messages = {  # noqa: RUF012 - marshmallow declares it so
        "required": "This field is required.",
        "null": "Send a string, not null.",
        "invalid": "Send a JSON string, in quotation marks.",
    }


class _TextLength(Length):
    """The length of a text, with an error for each way to miss it."""

    def __init__(self, shortest: int, longest: int, *, empty: str) -> None:
        # The base class keeps the bounds, which the OpenAPI document names.
        super().__init__(shortest, longest)
        self._shortest, self._longest, self._empty = shortest, longest, empty

    def __call__(self, value: _SizedT) -> _SizedT:
        """Return the text. Raises ValidationError."""
        if not value:
            raise ValidationError(self._empty)
        if len(value) < self._shortest:
            raise ValidationError(f"Use at least {self._shortest} characters.")
        if len(value) > self._longest:
            raise ValidationError(f"Use at most {self._longest} characters.")
        return value


class _Digits(_Text):
    """A string, or an integer, which becomes a string: JSON documents may well contain an id as a number."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:  # noqa: ANN401 - marshmallow's own signature
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return super()._deserialize(value, attr, data, **kwargs)


class _Email(_Text):
    """One email address, stored with its domain in IDNA form and without surrounding spaces.

    The domain's existence is not checked.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:  # noqa: ANN401 - marshmallow's own signature
        text: str = super()._deserialize(value, attr, data, **kwargs).strip()
        if not text:
            raise ValidationError("Enter your email address.")
        if len(text) > _LONGEST_EMAIL:
            raise ValidationError(f"Use at most {_LONGEST_EMAIL} characters.")
        if not text.partition("@")[0].isascii():
            raise ValidationError("Use only ASCII characters before the @. Many mail servers refuse others.")
        return _normalized(text)


def _normalized(text: str) -> str:
    # The library's own texts would quote parts of the address.
    refusal = ValidationError("Enter an email address like name@example.com, without spaces or quotes.")
    try:
        # `.test` names are not special for applications (RFC 6761). Only this flag makes the library accept them.
        address = validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError:
        raise refusal from None
    if "." not in address.ascii_domain or address.ascii_email is None or not is_mailable(address.ascii_email):
        raise refusal
    return address.ascii_email


def _check_username(text: str) -> None:
    if not _USERNAME.fullmatch(text):
        raise ValidationError("Use only lowercase letters a-z, digits and underscores.")


def _check_full_name(text: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} or character in _REFUSED_IN_NAMES for character in text):
        raise ValidationError(
            "Write the name on one line, without control characters or characters that change the writing direction."
        )
    if text and not any(map(_is_visible, text)):
        raise ValidationError("Enter a name with visible characters.")


def _check_password(text: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise ValidationError("Use only characters that you can type. Spaces are fine.")


def _is_visible(character: str) -> bool:
    """Return whether a character is visible. Characters unknown to Python's Unicode version count as visible."""
    category = unicodedata.category(character)
    return not (category[0] in "ZM" or category in {"Cc", "Cf", "Cs"} or character in _BLANK)


class _StrictSchema(Schema):
    error_messages = {"unknown": "Unknown field: remove it."}  # noqa: RUF012 - marshmallow declares it so

    class Meta:
        unknown = RAISE


class SignUpSchema(_StrictSchema):
    """The body of POST /v1/users."""

    username = _Text(
        required=True,
        validate=[_TextLength(3, 100, empty="Enter a username."), _check_username],
        metadata=USERNAME_RULE,
    )
    full_name = _Text(
        required=True,
        validate=[_TextLength(1, 100, empty="Enter your full name."), _check_full_name],
        metadata=FULL_NAME_RULE,
    )
    email = _Email(required=True, metadata=_EMAIL_RULE)
    password = _Text(required=True)

    def __init__(self, shortest_password: int = DEFAULT_PASSWORD_MIN_LENGTH) -> None:
        """Create the schema with the shortest allowed length of a password."""
        super().__init__()
        self.shortest_password = shortest_password
        bounds = {"shortest": shortest_password, "longest": LONGEST_PASSWORD}
        password = self.fields["password"]
        password.validators = [
            Length(max=LONGEST_PASSWORD, error=f"Use at most {LONGEST_PASSWORD} characters."),
            _check_password,
        ]
        description = _PASSWORD_RULE["description"].format_map(bounds)
        password.metadata = {**_PASSWORD_RULE, "description": description, "minLength": shortest_password}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _name_weakness(self, data: Mapping[str, str], original: Mapping[str, Any], **_kwargs: object) -> None:
        """Report a weak password together with other errors. Alone, it is refused only where an account is created."""
        if (len(data) < len(self.fields) or original.keys() - data) and (weakness := self._weakness(data)):
            raise ValidationError(weakness, "password")

    @post_load
    def _request(self, data: dict[str, str], **_kwargs: object) -> SignUpRequest:
        return SignUpRequest(**data, weakness=self._weakness(data))

    def _weakness(self, data: Mapping[str, str]) -> str | None:
        """Return why a new account may not have this password, judged by the valid fields."""
        if "password" not in data:
            return None
        username, email = data.get("username", ""), data.get("email", "")
        return refusal_reason(data["password"], username, email, shortest=self.shortest_password)


class VerifySchema(_StrictSchema):
    """The JSON body of POST /v1/verify_email."""

    email_id = _Digits(required=True, metadata={**_EMAIL_ID_RULE, "type": ["string", "integer"]})
    secret_code = _Text(required=True, metadata=_SECRET_CODE_RULE)
    username = _Text(metadata=_MEANT_USERNAME_RULE)
    password = _Text(metadata=_MEANT_PASSWORD_RULE)


class LinkSchema(Schema):
    """The two parameters of a link, in a query or a form, for the OpenAPI document."""

    email_id = fields.String(required=True, metadata=_EMAIL_ID_RULE)
    secret_code = fields.String(required=True, metadata=_SECRET_CODE_RULE)

    class Meta:
        """Marshmallow's options: unknown fields are ignored."""

        unknown = EXCLUDE


class VerifyFormSchema(LinkSchema):
    """The form that verifies, for the OpenAPI document."""

    username = fields.String(metadata=_MEANT_USERNAME_RULE)
    password = fields.String(metadata=_MEANT_PASSWORD_RULE)


class AddressSchema(_StrictSchema):
    """The body of POST /v1/signup/email."""

    email = _Email(required=True, metadata=_EMAIL_RULE)


class ResendSchema(AddressSchema):
    """The body of POST /v1/verify_email/resend."""

    username = _Text(
        metadata={
            "description": "Where several unverified accounts have the address: the username of yours, else the newest."
        }
    )


def load(schema: Schema, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the schema makes of it
    """Return the validated body. Raises ProblemError with every invalid field."""
    try:
        return schema.load(body)
    except ValidationError as exc:
        problems = exc.messages_dict
        # marshmallow reports unknown fields in no order; a response has one.
        names = [name for name in dict.fromkeys([*schema.fields, *body]) if name in problems]
        errors = [FieldError(name, detail) for name in names for detail in problems[name]]
    raise invalid_fields(errors)
