"""What stands beside a type in `Annotated[...]`: defaults, checks of values and hints for widgets."""

import typing
from dataclasses import dataclass


class Default:
    """The first value of a parameter, given itself or as a function that makes it."""

    def __init__(self, value=None, *, generator=None):
        self._value, self.generator = value, generator

    @property
    def value(self):
        """Return the value."""
        return self._value if self.generator is None else self.generator()


class Validator:
    """A check of values."""

    def validate(self, value):
        """Raise ValueError or TypeError where a value is not allowed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Choice(Validator):
    """The value is one of `choices`."""

    choices: typing.Sequence

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of: {list(self.choices)}")


@dataclass(frozen=True)
class Exclude(Validator):
    """The value is none of `excludedValues`."""

    excludedValues: typing.Sequence

    def validate(self, value):
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, but must not be one of: {list(self.excludedValues)}")


@dataclass(frozen=True)
class Minimum(Validator):
    """The value is at least `minimum`."""

    minimum: float

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"Value is {value}, but must be at least {self.minimum}")


@dataclass(frozen=True)
class Maximum(Validator):
    """The value is at most `maximum`."""

    maximum: float

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"Value is {value}, but must be at most {self.maximum}")


@dataclass(frozen=True)
class WithinRange(Validator):
    """The value lies between `minimum` and `maximum`, both allowed."""

    minimum: float
    maximum: float

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value is {value}, but must lie between {self.minimum} and {self.maximum}")


@dataclass(frozen=True)
class RangeBounds(Validator):
    """Both ends of a FloatRange lie between `minimum` and `maximum`."""

    minimum: float
    maximum: float

    def validate(self, value):
        if value.minimum < self.minimum or value.maximum > self.maximum:
            raise ValueError(f"Range is {value}, but must lie between {self.minimum} and {self.maximum}")


class NotNone(Validator):
    """The value is not None."""

    def validate(self, value):
        if value is None:
            raise ValueError("Value must not be None")


@dataclass(frozen=True)
class IsInstance(Validator):
    """The value is of a type."""

    classtype: type

    def validate(self, value):
        if not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value {value!r}")


@dataclass(frozen=True)
class Decimals:
    """How many digits the widget shows after the point."""

    value: int


@dataclass(frozen=True)
class SingleStep:
    """How far one step of the widget goes."""

    value: float


@dataclass(frozen=True)
class Label:
    """What a form calls the parameter."""

    label: str


def split_annotations(annotated_type):
    """Return the type and the tuple of its annotations."""
    if typing.get_origin(annotated_type) is typing.Annotated:
        plain, *annotations = typing.get_args(annotated_type)
        return plain, tuple(annotations)
    return annotated_type, ()


def first_annotation(annotated_type, kind):
    """Return the first annotation of a kind, or None."""
    return next((item for item in split_annotations(annotated_type)[1] if isinstance(item, kind)), None)
