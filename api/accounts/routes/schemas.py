"""What a client may send: each rule says what is wrong and how to mend it, and never repeats the value."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from email_validator import EmailNotValidError, validate_email
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, post_load, validates_schema
from marshmallow.validate import Length

from api.accounts.passwords.rules import LONGEST_PASSWORD, refusal_reason
from api.accounts.signup import SignUpRequest
from api.http.problems import FieldError, invalid_fields
from shared.addresses import is_mailable
from shared.settings.processes import DEFAULT_PASSWORD_MIN_LENGTH

_USERNAME: Final = re.compile(r"[a-z0-9_]*")
_LONGEST_EMAIL: Final = 254
# Line and paragraph separators, and what turns the direction of the text that follows a name in a mail.
_REFUSED_IN_NAMES: Final = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Letters and symbols that show nothing: the Hangul fillers and the empty Braille pattern.
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")

# For the OpenAPI document: what the checks below hold, as far as its language can say it.
USERNAME_RULE: Final[Mapping[str, Any]] = {"pattern": "^[a-z0-9_]*$", "description": "3 to 100 of a-z, 0-9 and _."}
FULL_NAME_RULE: Final[Mapping[str, Any]] = {
    "format": "full-name",
    "description": "1 to 100 characters of any script in one line, of which at least one can be seen. No control"
    " characters, line separators or characters that turn the direction of writing.",
}
_EMAIL_RULE: Final[Mapping[str, Any]] = {
    "format": "email",
    "maxLength": _LONGEST_EMAIL,
    "description": "One address; ASCII before the @, without =?, any script after it. Blanks around it are left out."
    " Unique whatever its case.",
}
_PASSWORD_RULE: Final[Mapping[str, Any]] = {
    "format": "password",
    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
    "description": "{shortest} to {longest} characters of any script, blanks included, no control characters. None that"
    " is common or made of the username or the address.",
}
_EMAIL_ID_RULE: Final[Mapping[str, Any]] = {"minLength": 1, "description": "`email_id` of the link."}
_SECRET_CODE_RULE: Final[Mapping[str, Any]] = {"minLength": 1, "description": "`secret_code` of the link."}

_MEANT_USERNAME_RULE: Final[Mapping[str, Any]] = {
    "minLength": 1,
    "description": "Where several accounts wait for the address: the one that is meant. With its password.",
}
_MEANT_PASSWORD_RULE: Final[Mapping[str, Any]] = {
    "format": "password",
    "minLength": 1,
    "description": "The password of that account. Five wrong ones end the link.",
}


class _Text(fields.String):
    """A JSON string, and nothing that could be turned into one."""

    default_error_messages = {  # noqa: RUF012 - marshmallow declares it so
        "required": "Missing: send this field.",
        "null": "Null: send a string.",
        "invalid": "Not a string: send a JSON string, in quotation marks.",
    }


class _Digits(_Text):
    """A string; a whole number is taken for its digits, as which a JSON document may well hold an id."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:  # noqa: ANN401 - marshmallow's own signature
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return super()._deserialize(value, attr, data, **kwargs)


class _Email(_Text):
    """One address that mail can be sent to, kept with its domain in IDNA form; blanks around it are left out.

    Nobody is asked whether the domain exists.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:  # noqa: ANN401 - marshmallow's own signature
        text: str = super()._deserialize(value, attr, data, **kwargs).strip()
        if len(text) > _LONGEST_EMAIL:
            raise ValidationError(f"Longer than {_LONGEST_EMAIL} characters: use a shorter address.")
        if not text.partition("@")[0].isascii():
            raise ValidationError(
                "The part before the @ holds other characters than ASCII, which many mail servers refuse:"
                " use an address without them."
            )
        return _normalized(text)


def _normalized(text: str) -> str:
    # The library's own words would quote parts of the address.
    refusal = ValidationError(
        "Not an address that mail can be sent to: send one address of the form name@example.com,"
        " without a display name, quotes, blanks inside or the characters =?."
    )
    try:
        # `.test` names are not special to applications (RFC 6761); the library lets them pass for this flag alone.
        address = validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError:
        raise refusal from None
    if "." not in address.ascii_domain or address.ascii_email is None or not is_mailable(address.ascii_email):
        raise refusal
    return address.ascii_email


def _check_username(text: str) -> None:
    if not _USERNAME.fullmatch(text):
        raise ValidationError("Holds other characters than a-z, 0-9 and _: use these alone, in lower case.")


def _check_full_name(text: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} or character in _REFUSED_IN_NAMES for character in text):
        raise ValidationError(
            "Holds a control character, a line separator or one that turns the direction of writing:"
            " leave it out and write the name in one line."
        )
    if text and not any(map(_is_visible, text)):
        raise ValidationError("Holds nothing that can be seen: write the name with letters.")


def _check_password(text: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise ValidationError("Holds a control character: use characters that can be typed, blanks included.")


def _is_visible(character: str) -> bool:
    """Tell whether a character shows something. One that Python's Unicode does not know yet is given credit."""
    category = unicodedata.category(character)
    return not (category[0] in "ZM" or category in {"Cc", "Cf", "Cs"} or character in _BLANK)


class _StrictSchema(Schema):
    error_messages = {"unknown": "Unknown: leave this field out."}  # noqa: RUF012 - marshmallow declares it so

    class Meta:
        unknown = RAISE


class SignUpSchema(_StrictSchema):
    """The body of POST /v1/users."""

    username = _Text(
        required=True,
        validate=[Length(3, 100, error="Has to have 3 to 100 characters."), _check_username],
        metadata=USERNAME_RULE,
    )
    full_name = _Text(
        required=True,
        validate=[Length(1, 100, error="Has to have 1 to 100 characters."), _check_full_name],
        metadata=FULL_NAME_RULE,
    )
    email = _Email(required=True, metadata=_EMAIL_RULE)
    password = _Text(required=True)

    def __init__(self, shortest_password: int = DEFAULT_PASSWORD_MIN_LENGTH) -> None:
        """Keep how short a password may be."""
        super().__init__()
        self.shortest_password = shortest_password
        bounds = {"shortest": shortest_password, "longest": LONGEST_PASSWORD}
        self._bounds = "Has to have {shortest} to {longest} characters.".format_map(bounds)
        password = self.fields["password"]
        password.validators = [Length(max=LONGEST_PASSWORD, error=self._bounds), _check_password]
        description = _PASSWORD_RULE["description"].format_map(bounds)
        password.metadata = {**_PASSWORD_RULE, "description": description, "minLength": shortest_password}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _name_weakness(self, data: Mapping[str, str], original: Mapping[str, Any], **_kwargs: object) -> None:
        """Name a weak password beside what else is wrong; alone it is for the code that makes an account to refuse."""
        if (len(data) < len(self.fields) or original.keys() - data) and (weakness := self._weakness(data)):
            raise ValidationError(weakness, "password")

    @post_load
    def _request(self, data: dict[str, str], **_kwargs: object) -> SignUpRequest:
        return SignUpRequest(**data, weakness=self._weakness(data))

    def _weakness(self, data: Mapping[str, str]) -> str | None:
        """Return why the password may belong to no new account, judged by those fields that are valid."""
        if "password" not in data:
            return None
        if len(data["password"]) < self.shortest_password:
            return self._bounds
        return refusal_reason(data["password"], data.get("username", ""), data.get("email", ""))


class VerifySchema(_StrictSchema):
    """The JSON body of POST /v1/verify_email."""

    email_id = _Digits(required=True, metadata={**_EMAIL_ID_RULE, "type": ["string", "integer"]})
    secret_code = _Text(required=True, metadata=_SECRET_CODE_RULE)
    username = _Text(metadata=_MEANT_USERNAME_RULE)
    password = _Text(metadata=_MEANT_PASSWORD_RULE)


class LinkSchema(Schema):
    """The two parameters of a link, in a query or a form, as the OpenAPI document names them."""

    email_id = fields.String(required=True, metadata=_EMAIL_ID_RULE)
    secret_code = fields.String(required=True, metadata=_SECRET_CODE_RULE)

    class Meta:
        """Marshmallow's options: what else stands there is ignored."""

        unknown = EXCLUDE


class VerifyFormSchema(LinkSchema):
    """The form that verifies, as the OpenAPI document names its fields."""

    username = fields.String(metadata=_MEANT_USERNAME_RULE)
    password = fields.String(metadata=_MEANT_PASSWORD_RULE)


class AddressSchema(_StrictSchema):
    """The body of POST /v1/signup/email."""

    email = _Email(required=True, metadata=_EMAIL_RULE)


class ResendSchema(AddressSchema):
    """The body of POST /v1/verify_email/resend."""

    username = _Text(
        metadata={"description": "Where several accounts wait for the address: the one that is meant, else the newest."}
    )


def load(schema: Schema, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the schema makes of it
    """Check a body. Raises ProblemError naming every invalid field at once."""
    try:
        return schema.load(body)
    except ValidationError as exc:
        problems = exc.messages_dict
        # marshmallow gives the unknown fields in no order; an answer has one.
        names = [name for name in dict.fromkeys([*schema.fields, *body]) if name in problems]
        errors = [FieldError(name, detail) for name in names for detail in problems[name]]
    raise invalid_fields(errors)
