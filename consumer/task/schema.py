"""The schema of a message's payload, derived from the annotations of its class."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

_Convert = Callable[[Any], object]


class _Value(fields.Field[Any]):
    """A value of exactly one of JSON's types: `"1"` and `true` are not numbers."""

    def __init__(self, convert: _Convert, expected: str, **options: Any) -> None:  # noqa: ANN401 - marshmallow's
        super().__init__(**options)
        self._convert = convert
        self._expected = expected

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_options: Any) -> object:  # noqa: ANN401, ARG002
        try:
            return self._convert(value)
        except (ValueError, TypeError, OverflowError, ArithmeticError) as exc:
            raise ValidationError(f"Not a valid {self._expected}.") from exc


class _Object(fields.Field[Any]):
    """An object with any keys. An error names no key, which may be an address."""

    def __init__(self, value: fields.Field[Any], **options: Any) -> None:  # noqa: ANN401 - marshmallow's
        super().__init__(**options)
        self._value = value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_options: Any) -> object:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ValidationError("Not a valid object.")
        try:
            return {key: self._value.deserialize(each, attr, data) for key, each in value.items()}
        except ValidationError as exc:
            raise ValidationError("Not a valid object: a value has another type.") from exc


def _exactly(*types: type) -> _Convert:
    def convert(value: object) -> object:
        if type(value) not in types:
            raise TypeError
        return value

    return convert


def _parsed(parse: Callable[[str], object]) -> _Convert:
    text = _exactly(str)
    return lambda value: parse(str(text(value)))


def _number(value: object) -> float:
    number = float(_exactly(float, int)(value))  # type: ignore[arg-type]
    if not isfinite(number):
        raise ValueError
    return number


_SCALARS: Final[Mapping[Any, tuple[_Convert, str]]] = {
    str: (_exactly(str), "string"),
    bool: (_exactly(bool), "boolean"),
    int: (_exactly(int), "integer"),
    float: (_number, "number"),
    Decimal: (_parsed(Decimal), "decimal number in a string"),
    datetime: (_parsed(datetime.fromisoformat), "time in ISO 8601"),
    date: (_parsed(date.fromisoformat), "date in ISO 8601"),
    UUID: (_parsed(UUID), "UUID"),
}


def schema_of(message: type[Any]) -> Schema:
    """Return the schema of a dataclass: strict, and unknown keys are ignored. Loading returns its arguments.

    Raises:
        TypeError: an annotation is none of those that docs/reference/tasks.md lists. Then a task needs `schema=`.

    """
    return _schema(message, _Arguments)


class _Arguments(Schema):
    class Meta:
        unknown = EXCLUDE


def _schema(message: type[Any], base: type[Schema]) -> Schema:
    hints = get_type_hints(message)
    attributes = {
        each.name: _field(hints[each.name], f"{message.__name__}.{each.name}", **_default(each))
        for each in dataclasses.fields(message)
        if each.init
    }
    derived: type[Schema] = type(f"{message.__name__}Schema", (base,), attributes)
    return derived()


def _nested(message: type[Any]) -> Schema:
    """Return the schema of a dataclass inside another: loading returns an instance."""

    class Instance(_Arguments):
        @post_load
        def make(self, data: dict[str, Any], **_options: Any) -> object:  # noqa: ANN401 - marshmallow's
            return message(**data)

    return _schema(message, Instance)


def _default(of_field: "dataclasses.Field[Any]") -> dict[str, Any]:
    if of_field.default is not dataclasses.MISSING:
        return {"load_default": of_field.default}
    if of_field.default_factory is not dataclasses.MISSING:
        return {"load_default": of_field.default_factory}
    return {"required": True}


def _field(hint: Any, where: str, **options: Any) -> fields.Field[Any]:  # noqa: ANN401, PLR0911 - any annotation
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return _Value(*_SCALARS[hint], **options)
    if origin in {Union, UnionType} and NoneType in arguments and len(arguments) == 2:  # noqa: PLR2004 - X | None
        [inner] = [each for each in arguments if each is not NoneType]
        return _field(inner, where, allow_none=True, **options)
    if origin is Literal:
        return _Value(_exactly(*map(type, arguments)), "choice", validate=validate.OneOf(arguments), **options)
    if origin in {list, Sequence}:
        return fields.List(_field(arguments[0], where), **options)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return fields.List(_field(arguments[0], where), post_load=tuple, **options)
    if origin in {dict, Mapping} and arguments[0] is str:
        return _Object(_field(arguments[1], where), **options)
    if hint in {object, Any}:
        return fields.Raw(**{"allow_none": True, **options})
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Value(hint, "choice", **options)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return fields.Nested(_nested(hint), **options)
    raise TypeError(f"{where}: no schema can be derived from {hint!r}: pass schema=")
