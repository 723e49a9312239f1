"""Parameter packs: several parameters in one value."""

import slicer

from .parameters import check_name, data_type, declared_parameters, split_name


class PackMethods:
    """What the decorator adds to a pack."""

    def __init__(self, *values, **named):
        parameters = type(self).allParameters
        if len(values) > len(parameters):
            raise ValueError(f"{type(self).__name__} has {len(parameters)} parameters, {len(values)} were given")
        given = {**dict(zip(parameters, values, strict=False)), **named}
        unknown = [name for name in given if name not in parameters]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no parameter {', '.join(unknown)}")
        for name, parameter in parameters.items():
            if name not in given:
                given[name] = parameter.default.value
            setattr(self, name, given[name])

    def __eq__(self, other):
        return (
            isinstance(other, PackMethods)
            and type(self).allParameters is type(other).allParameters
            and all(getattr(self, name) == getattr(other, name) for name in type(self).allParameters)
        )

    __hash__ = None

    def __repr__(self):
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).allParameters)
        return f"{type(self).__name__}({values})"

    def getValue(self, name):
        """Return the value of a name with dots."""
        check_name(type(self).allParameters, name)
        top, rest = split_name(name)
        value = getattr(self, top)
        return value if rest is None else value.getValue(rest)

    def setValue(self, name, value):
        """Set the value of a name with dots."""
        check_name(type(self).allParameters, name)
        top, rest = split_name(name)
        if rest is None:
            setattr(self, top, value)
        else:
            getattr(self, top).setValue(rest, value)

    @classmethod
    def dataType(cls, name):
        """Return the type of a name with dots."""
        return data_type(cls.allParameters, name)


def _own_field(name, parameter):
    """A field of a pack that stands alone."""

    def write(pack, value):
        parameter.serializer.check(value)
        pack.__dict__[name] = value

    return property(lambda pack: pack.__dict__[name], write)


def _stored_field(name, parameter):
    """A field of a pack that lives in a parameter node."""

    def read(pack):
        node, prefix = pack._place
        return parameter.serializer.read(node, f"{prefix}.{name}")

    def write(pack, value):
        parameter.serializer.check(value)
        node, prefix = pack._place
        with slicer.util.NodeModify(node):
            parameter.serializer.write(node, f"{prefix}.{name}", value)

    return property(read, write)


def parameterPack(classtype=None):
    """Class decorator: make the annotated fields of a class one value for a parameter node."""
    if classtype is None:
        return parameterPack
    parameters = declared_parameters(classtype)
    methods = {name: value for name, value in vars(PackMethods).items() if name not in ("__dict__", "__weakref__")}
    own = {name: value for name, value in vars(classtype).items() if name not in ("__dict__", "__weakref__")}
    if "__init__" in own:
        methods["_init_fields"] = methods["__init__"]
    fields = {name: _own_field(name, parameter) for name, parameter in parameters.items()}
    body = {**methods, **own, **fields, "allParameters": parameters}
    pack = type(classtype.__name__, (*[base for base in classtype.__bases__ if base is not object], PackMethods), body)
    stored = {name: _stored_field(name, parameter) for name, parameter in parameters.items()}
    pack._stored_class = type(classtype.__name__, (pack,), {**stored, "__init__": _init_stored})
    return pack


def _init_stored(pack, node, name):
    pack._place = (node, name)


class PackSerializer:
    """A pack: each field under its own name behind the pack's."""

    def __init__(self, pack):
        self._pack = pack

    def default(self):
        return self._pack()

    def is_in(self, node, name):
        fields = self._pack.allParameters
        return all(parameter.serializer.is_in(node, f"{name}.{field}") for field, parameter in fields.items())

    def check(self, value):
        if not isinstance(value, self._pack):
            raise TypeError(f"Value must be of type '{self._pack}', is type '{type(value)}' value '{value}'")

    def write(self, node, name, value):
        for field, parameter in self._pack.allParameters.items():
            parameter.serializer.write(node, f"{name}.{field}", getattr(value, field))

    def read(self, node, name):
        return self._pack._stored_class(node, name)

    def remove(self, node, name):
        for field, parameter in self._pack.allParameters.items():
            parameter.serializer.remove(node, f"{name}.{field}")


def isParameterPack(obj):
    """Tell whether a class, or the class of an object, is a pack."""
    cls = obj if isinstance(obj, type) else type(obj)
    return issubclass(cls, PackMethods) and cls is not PackMethods


def nestedParameterNames(pack):
    """Return the names, with dots, of all fields of a pack and of the packs in it."""
    names = []
    for name in pack.allParameters:
        type_ = pack.dataType(name)
        if isParameterPack(type_):
            names += [f"{name}.{inner}" for inner in nestedParameterNames(type_)]
        else:
            names.append(name)
    return names


@parameterPack
class FloatRange:
    """An interval."""

    _minimum: float
    _maximum: float

    def __init__(self, minimum=0, maximum=0):
        self.checkRange(minimum, maximum)
        self._init_fields(minimum, maximum)

    @staticmethod
    def checkRange(minimum, maximum):
        """Raise ValueError unless the ends are ordered."""
        if minimum > maximum:
            raise ValueError(f"the minimum {minimum} is greater than the maximum {maximum}")

    def setRange(self, minimum, maximum):
        """Set both ends."""
        self.checkRange(minimum, maximum)
        self._minimum, self._maximum = minimum, maximum

    @property
    def minimum(self):
        """The lower end."""
        return self._minimum

    @minimum.setter
    def minimum(self, value):
        self.setRange(value, self._maximum)

    @property
    def maximum(self):
        """The upper end."""
        return self._maximum

    @maximum.setter
    def maximum(self, value):
        self.setRange(self._minimum, value)
