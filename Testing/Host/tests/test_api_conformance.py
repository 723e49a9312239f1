"""No look-alike shows more than PythonQt shows of its model: what a panel can use here, it can use in Slicer."""

import json
from pathlib import Path

import pytest

API = json.loads(Path(__file__).with_name("slicer_api.json").read_text(encoding="utf-8"))


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


def _offences(look_alikes, find):
    """Return what `find` gives for each class, where it gives something."""
    found = {name: find(name, cls) for name, cls in look_alikes.items()}
    return {name: offence for name, offence in found.items() if offence}


def test_every_look_alike_has_a_model(look_alikes):
    assert sorted(set(look_alikes) - set(API)) == []


def test_shows_nothing_that_slicer_hides(look_alikes):
    def extra_names(name, cls):
        native = _native_base(cls)
        own = {item for base in cls.__mro__[: cls.__mro__.index(native)] for item in vars(base) if item[0] != "_"}
        extra = own - _shown_by_slicer(name) - {"staticMetaObject"}
        return sorted(item for item in extra if not hasattr(native, item))

    assert _offences(look_alikes, extra_names) == {}


def test_inherits_what_its_model_inherits(look_alikes):
    def wrong_bases(name, cls):
        expected = [base for base in _slicer_bases(name) if base in look_alikes or base not in API]
        bases = [base.__name__ for base in cls.__mro__ if base.__name__ in expected]
        return () if bases == expected else (bases, expected)

    assert _offences(look_alikes, wrong_bases) == {}


def test_no_property_is_freer_than_slicers(look_alikes):
    def writable(name, cls):
        read_only = [item for item, text in API[name].get("p", {}).items() if text.split("|")[2] == "-"]
        own = {item: vars(cls).get(item) for item in read_only}
        return [item for item, value in own.items() if isinstance(value, property) and value.fset is not None]

    assert _offences(look_alikes, writable) == {}


def test_every_signal_has_slicers_signature(look_alikes):
    from slicer_host.pythonqt.signals import mrml_signals, normalized

    def unknown_signals(name, cls):
        entries = [item for base in _slicer_bases(name) for item in API.get(base, {}).get("sig", ())]
        allowed = {normalized(item.split("@")[0].strip()) for item in entries}
        own = {item for item, value in vars(cls).items() if type(value).__name__ == "Signal"}
        by_table = {signature for signature, attribute in mrml_signals(cls).items() if attribute in own}
        meta = cls.staticMetaObject
        methods = [meta.method(index) for index in range(meta.methodOffset(), meta.methodCount())]
        by_qt = {bytes(method.methodSignature().data()).decode() for method in methods}
        covered = {_name(signature) for signature in by_table}
        by_qt = {item for item in by_qt if _name(item) in own and _name(item)[0] != "_" and _name(item) not in covered}
        return sorted((by_qt | by_table) - allowed)

    assert _offences(look_alikes, unknown_signals) == {}
