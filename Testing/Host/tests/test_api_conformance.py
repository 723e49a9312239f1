"""No look-alike shows more than PythonQt shows of its model: what a panel can use here, it can use in Slicer."""

import json
from pathlib import Path

import pytest

API = json.loads(Path(__file__).with_name("slicer_api.json").read_text(encoding="utf-8"))
_LEFT_OUT = {"ctkCommandLineParser"}  # a base class that no script meets
_NAMES = sorted(set(API) - _LEFT_OUT)


def _name(entry):
    """Return the bare name of "name(types)->type @mark"."""
    return entry.split("(")[0].split("->")[0].split("@")[0].strip()


def _shown_by_slicer(class_name):
    entry = API.get(class_name)
    if entry is None:
        return set()
    names = {_name(item) for key in ("slot", "inv", "fn", "sig", "st") for item in entry.get(key, ())}
    names |= set(entry.get("p", ())) | {_name(item) for item in entry.get("en", ())}
    names |= {_name(value) for values in entry.get("en", {}).values() for value in values.split()}
    return names.union(*(_shown_by_slicer(base) for base in (entry["b"], *entry.get("b2", ()))))


def _slicer_bases(class_name):
    while class_name in API:
        yield class_name
        class_name = API[class_name]["b"]
    yield class_name


@pytest.fixture
def look_alikes(slicer_app):  # noqa: ARG001 - only there to be started
    from slicer_host.look_alikes import LOOK_ALIKES

    return LOOK_ALIKES


def _native_base(cls):
    return next(base for base in cls.__mro__ if base.__module__.startswith("PySide6"))


def test_every_look_alike_has_a_model(look_alikes):
    assert sorted(set(look_alikes) - set(API)) == []


@pytest.mark.parametrize("class_name", _NAMES)
def test_shows_nothing_that_slicer_hides(look_alikes, class_name):
    cls = look_alikes[class_name]
    native = _native_base(cls)
    own = {name for base in cls.__mro__[: cls.__mro__.index(native)] for name in vars(base) if name[0] != "_"}
    extra = {name for name in own - _shown_by_slicer(class_name) if not hasattr(native, name)} - {"staticMetaObject"}
    assert extra == set()


@pytest.mark.parametrize("class_name", _NAMES)
def test_inherits_what_its_model_inherits(look_alikes, class_name):
    bases = [base.__name__ for base in look_alikes[class_name].__mro__]
    expected = [name for name in _slicer_bases(class_name) if name in look_alikes or name not in API]
    assert [name for name in bases if name in expected] == expected


@pytest.mark.parametrize("class_name", _NAMES)
def test_no_property_is_freer_than_slicers(look_alikes, class_name):
    for name, description in API[class_name].get("p", {}).items():
        value = vars(look_alikes[class_name]).get(name)
        if isinstance(value, property) and description.split("|")[2] == "-":
            assert value.fset is None, name


@pytest.mark.parametrize("class_name", _NAMES)
def test_every_signal_has_slicers_signature(look_alikes, class_name):
    from slicer_host.pythonqt.signals import mrml_signals, normalized

    cls = look_alikes[class_name]
    allowed = {
        normalized(_name_and_types(item))
        for base in _slicer_bases(class_name)
        for item in API.get(base, {}).get("sig", ())
    }
    own = {name for name, value in vars(cls).items() if type(value).__name__ == "Signal"}
    by_table = {signature for signature, name in mrml_signals(cls).items() if name in own}
    meta = cls.staticMetaObject
    methods = [meta.method(index) for index in range(meta.methodOffset(), meta.methodCount())]
    by_qt = {bytes(method.methodSignature().data()).decode() for method in methods}
    by_qt = {item for item in by_qt if not item.startswith("_") and "PyObject" not in item and _name(item) in own}
    in_table = {_name(signature) for signature in by_table}
    assert {item for item in by_qt if _name(item) not in in_table} | by_table <= allowed


def _name_and_types(entry):
    return entry.split("@")[0].strip()
