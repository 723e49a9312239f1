"""Write slicer_api.json: what PythonQt shows of the classes that the host imitates.

Usage: python make_slicer_api.py FULL_API.json, with the JSON that the static checker of Slicer modules reads. Only
names and signatures of the look-alikes and their base classes are kept.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

_KEPT = ("b", "b2", "p", "sig", "slot", "inv", "fn", "st", "en")


def main() -> None:
    """Write the file beside this script."""
    # The application imports its window and views when it needs them; their look-alikes count here too.
    import_module("slicer_host.main_window")
    import_module("slicer_host.views.layout_manager")
    from slicer_host.application import LOOK_ALIKES

    everything = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cpp"]
    waiting, kept = list(LOOK_ALIKES), {}
    while waiting:
        name = waiting.pop()
        if name in everything and name not in kept:
            kept[name] = {key: everything[name][key] for key in _KEPT if key in everything[name]}
            waiting += [kept[name]["b"], *kept[name].get("b2", ())]
    text = json.dumps(dict(sorted(kept.items())), indent=1, sort_keys=True)
    Path(__file__).with_name("slicer_api.json").write_text(f"{text}\n", encoding="utf-8")


main()
