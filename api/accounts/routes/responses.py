"""Schemas of the JSON responses, for writing them and for the OpenAPI document."""

from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, fields

from api.accounts.routes.schemas import FULL_NAME_RULE, USERNAME_RULE


class _Moment(fields.AwareDateTime):
    """A time in UTC, in the format of RFC 3339."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - marshmallow's own signature
        return super()._serialize(value and value.astimezone(UTC), attr, obj, **kwargs)


class _Answer(Schema):
    class Meta:
        """Marshmallow's options."""

        unknown = "raise"


class UserSchema(_Answer):
    """A user whose address is not verified yet."""

    username = fields.String(required=True, metadata=USERNAME_RULE)
    full_name = fields.String(required=True, metadata=FULL_NAME_RULE)
    email = fields.String(
        required=True, metadata={"description": "The email address, with its domain in IDNA form.", "format": "email"}
    )
    is_email_verified = fields.Boolean(required=True)
    created_at = _Moment(required=True)
    signup_token = fields.String(
        required=True,
        metadata={"description": "Proves that you created this account. Keep it as safe as a password."},
    )


class MailStateSchema(_Answer):
    """The state of the mail."""

    state = fields.String(
        required=True,
        metadata={
            "description": "`pending`: on its way. `waiting`: delayed by a limit. `sent`: the mail server accepted it."
            " `taken`: another account was verified with the address."
        },
    )
    until = _Moment(metadata={"description": "When a waiting email is sent at the latest."})


class SignupStateSchema(_Answer):
    """An account and the state of its mail."""

    username = fields.String(required=True, metadata=USERNAME_RULE)
    email = fields.String(required=True, metadata={"format": "email"})
    is_email_verified = fields.Boolean(required=True)
    mail = fields.Nested(MailStateSchema, required=True)


class VerifiedSchema(_Answer):
    """Whether the address of a link is verified."""

    is_verified = fields.Boolean(required=True)


class AcceptedSchema(_Answer):
    """The same text for every address."""

    detail = fields.String(required=True)


class HealthSchema(_Answer):
    """The health of the service."""

    status = fields.String(required=True)


class FieldErrorSchema(_Answer):
    """What is wrong with one field, and how to fix it."""

    field = fields.String(required=True, metadata={"description": "The field's name. Empty for the whole body."})
    pointer = fields.String(
        metadata={"description": "The field's place in the body: a JSON Pointer as a URI fragment (RFC 6901)."}
    )
    detail = fields.String(required=True)


class ProblemSchema(_Answer):
    """An error (RFC 9457)."""

    type = fields.String(
        required=True,
        metadata={"description": "`about:blank`, or `proof-required` where you have to show which account is yours."},
    )
    title = fields.String(required=True, metadata={"description": "The status in words."})
    status = fields.Integer(required=True, strict=True)
    detail = fields.String(required=True, metadata={"description": "What is wrong and how to fix it."})
    errors = fields.List(fields.Nested(FieldErrorSchema), metadata={"description": "Every invalid field."})
