"""The typed fields of a class that declares parameters."""

import typing
from dataclasses import dataclass
from typing import Any

from .annotations import Default, first_annotation
from .serializers import serializer_for


@dataclass(frozen=True)
class Parameter:
    """One field: name, type with annotations, serializer and default."""

    basename: str
    unalteredType: Any
    serializer: Any
    default: Default


def declared_parameters(cls) -> dict[str, Parameter]:
    """Return the parameters that a class declares, each as `name: type` or `name: type = default`."""
    parameters = {}
    for name, type_ in typing.get_type_hints(cls, include_extras=True).items():
        serializer = serializer_for(type_)
        annotated = first_annotation(type_, Default)
        if hasattr(cls, name):
            default = Default(getattr(cls, name))
        else:
            default = annotated if annotated is not None else Default(generator=serializer.default)
        parameters[name] = Parameter(name, type_, serializer, default)
    return parameters


def split_name(name):
    """Split "pack.field.part" into "pack" and "field.part"; the second is None without a dot."""
    top, _, rest = name.partition(".")
    return top, rest or None


def check_name(parameters, name):
    """Raise ValueError where there is no parameter of that name, dots and all."""
    top, rest = split_name(name)
    if top not in parameters:
        raise ValueError(f"Cannot find a param with the given name: {top}; there are {', '.join(parameters)}")
    if rest is not None:
        from .packs import isParameterPack

        plain = type_of(parameters[top])
        if not isParameterPack(plain):
            raise ValueError(f"'{top}' has no parts, so there is no '{name}'")
        check_name(plain.allParameters, rest)


def type_of(parameter):
    """Return the type of a parameter without annotations."""
    from .annotations import split_annotations

    return split_annotations(parameter.unalteredType)[0]


def data_type(parameters, name):
    """Return the type, with annotations, of the parameter of a name with dots."""
    check_name(parameters, name)
    top, rest = split_name(name)
    return parameters[top].unalteredType if rest is None else data_type(type_of(parameters[top]).allParameters, rest)
