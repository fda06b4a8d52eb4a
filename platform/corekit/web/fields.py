"""Serializers that take a request at its word: no unknown names, and no text where a number belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers

if TYPE_CHECKING:
    from collections.abc import Mapping

    Fields = serializers.Serializer[Any]
else:
    Fields = serializers.Serializer


class Body(Fields):
    """Base of everything that is sent: a name that it does not know is an error, not a wish that is ignored."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked values. Raises ValidationError."""
        if not isinstance(data, dict):
            raise serializers.ValidationError({"non_field_errors": ["The body must be a JSON object."]})
        if unknown := sorted(set(data) - set(self.fields)):
            raise serializers.ValidationError({unknown[0][:100]: ["There is no field of this name."]})
        return super().to_internal_value(data)


class Query(Fields):
    """Base of a query's parameters: an unknown or repeated one is an error."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked values. Raises ValidationError."""
        for name in data:
            if name not in self.fields:
                raise serializers.ValidationError({name[:100]: ["There is no parameter of this name."]})
            if len(data.getlist(name)) > 1:
                raise serializers.ValidationError({name[:100]: ["Give it once."]})
        return super().to_internal_value(data.dict())


class WholeNumber(serializers.IntegerField):
    """A JSON integer within a range. Texts, fractions, true and false are refused; the message names the range."""

    def __init__(self, *, minimum: int, maximum: int = 2**63 - 1, **options: Any) -> None:
        said = f"Must be a whole number from {minimum}" + (f" to {maximum}." if maximum < 2**63 - 1 else ".")
        messages: dict[str, Any] = dict.fromkeys(
            ("invalid", "min_value", "max_value", "max_string_length", "null"), said
        )
        super().__init__(min_value=minimum, max_value=maximum, error_messages=messages, **options)

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(data)


class Text(serializers.CharField):
    """A JSON text. Numbers are refused."""

    def to_internal_value(self, data: Any) -> str:
        """Return the text."""
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Flag(serializers.BooleanField):
    """A JSON true or false. Words and numbers are refused."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the value."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def checked(serializer: type[Fields], data: Any) -> Mapping[str, Any]:
    """Return the checked values of a body or a query. Raises ValidationError."""
    if data is None:
        raise serializers.ValidationError("The body must be a JSON object.")
    asked = serializer(data=data)
    asked.is_valid(raise_exception=True)
    values: Mapping[str, Any] = asked.validated_data
    return values
