"""A worker for the panel's tests: speaks the protocol and segments by threshold; the model's id says how.

Behaviours, taken from the model's id: "plain"; "slow" runs until cancelled; "deaf" ignores cancel;
"crash" dies halfway; "refuse" answers with an input error; "empty" finds nothing. Gaps (NaN) are warned of.
"vast" is foreseen to need too much memory for more than 8000 voxels.
An import copies a model folder; here the name of what is imported tells the behaviour.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np

LABELS = (
    {"value": 1, "name": "Body", "color": [210, 160, 120]},
    {
        "value": 2,
        "name": "Core",
        "color": [220, 60, 50],
        "category": {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"},
        "term": {"scheme": "SCT", "value": "64033007", "meaning": "Kidney"},
    },
    {"value": 5, "name": "Absent", "color": [60, 90, 220]},
)

MOST_UNCERTAIN = (3, 7, 11)

cancelled: set[int] = set()


def send(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def segment(request: dict) -> None:
    behaviour = json.loads((Path(request["model"]) / "model.json").read_text())["id"]
    array = _voxels(request["volume"])
    steps = 10_000 if behaviour in ("slow", "deaf") else 4
    for step in range(steps):
        if request["id"] in cancelled and behaviour != "deaf":
            send(id=request["id"], event="cancelled")
            return
        if step == 2 and behaviour == "crash":
            sys.stderr.write("RuntimeError: the crash that the test asked for\n")
            sys.stderr.flush()
            os._exit(3)
        if behaviour == "refuse":
            send(id=request["id"], event="error", kind="input", message="volume is too small: take a larger one")
            return
        send(id=request["id"], event="progress", fraction=min(0.95, step / steps), stage="Segmenting")
        time.sleep(0.05)
    gaps = int((~np.isfinite(array)).sum())
    send(id=request["id"], event="result", **result(array, request, behaviour, gaps))


def _voxels(volume: dict) -> np.ndarray:
    return np.memmap(volume["path"], dtype=volume["dtype"], mode="r", shape=tuple(volume["shape"]))[0]


def result(array: np.ndarray, request: dict, behaviour: str, gaps: int) -> dict:
    labelmap = np.memmap(request["output"], dtype=np.uint8, mode="w+", shape=array.shape)
    if behaviour != "empty":
        for plane, values in zip(labelmap, array, strict=True):
            plane[:] = np.uint8(values > 100) + np.uint8(values > 200)
    labelmap.flush()
    segments = []
    for label in LABELS:
        mask = labelmap == label["value"]
        bounds = [_extent(mask, axis) for axis in range(3)] if mask.any() else None
        segments.append({"label": label, "voxels": int(mask.sum()), "bounds": bounds})
    return {
        "labelmap": {"path": request["output"], "dtype": "uint8", "shape": list(array.shape)},
        "segments": segments,
        "provenance": {
            "model_id": behaviour,
            "device": request["device"],
            **{name: request[name] for name in ("affine_ras", "channels", "region_to_ras")},
            "channel_means": [channel and float(_voxels(channel["volume"]).mean()) for channel in request["channels"]],
        },
        "duration_s": {"total": 0.2},
        "warnings": ["the volume has <gaps>", f"{gaps} voxels were taken as background"] if gaps else [],
        **_maps(labelmap, request),
    }


def _maps(labelmap: np.ndarray, request: dict) -> dict:
    fields: dict = {}
    if request["uncertainty"]:
        np.where(labelmap == 1, 0.5, 0).astype(np.float32).tofile(request["uncertainty"])
        fields["uncertainty"] = {"path": request["uncertainty"], "dtype": "float32", "shape": list(labelmap.shape)}
        fields["most_uncertain"] = MOST_UNCERTAIN
    if request["probabilities"]:
        classes = [0, *(label["value"] for label in LABELS)]
        array = np.stack([0.75 * (labelmap == value) for value in classes]).astype(np.float16)
        array.tofile(request["probabilities"])
        fields["probabilities"] = {"path": request["probabilities"], "dtype": "float16", "shape": list(array.shape)}
    return fields


def _extent(mask: np.ndarray, axis: int) -> list[int]:
    present = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return [int(present[0]), int(present[-1])]


def import_model(request: dict) -> None:
    source, incoming = Path(request["path"]), Path(request["incoming"])
    behaviour = source.name
    shutil.copytree(source, incoming / "model")
    send(id=request["id"], event="progress", fraction=0.0, stage="Reading the model")
    while behaviour in ("slow", "deaf"):
        time.sleep(0.05)
        if request["id"] in cancelled and behaviour != "deaf":
            shutil.rmtree(incoming)
            send(id=request["id"], event="cancelled")
            return
    if behaviour == "crash":
        os._exit(3)
    if behaviour == "refuse":
        shutil.rmtree(incoming)
        send(id=request["id"], event="error", kind="input", message="it is a <cascade>: give another one")
        return
    target = Path(request["models"]) / behaviour
    (incoming / "model").rename(target)
    incoming.rmdir()
    warnings = ["fold_1 is <missing>"] if behaviour == "warned" else []
    send(id=request["id"], event="result", folder=str(target), warnings=warnings)


def foresee(request: dict) -> None:
    behaviour = json.loads((Path(request["model"]) / "model.json").read_text())["id"]
    voxels = np.prod(request["shape"])
    if request["region_to_ras"] is not None:
        voxels = 8 * np.linalg.det(np.array(request["region_to_ras"])[:3, :3])
    isTooMuch = behaviour == "vast" and voxels > 8000
    send(id=request["id"], event="result", warning="the image needs <b>40</b> GB of memory" if isTooMuch else "")


OPERATIONS = {"segment": segment, "foresee": foresee, "import": import_model}


def main() -> None:
    send(
        id=0,
        event="ready",
        protocol=1,
        version="test",
        pid=os.getpid(),
        torch="none",
        devices=[{"id": "cpu", "title": "CPU", "memory_mb": 1000}, {"id": "cuda", "title": "GPU", "memory_mb": 9}],
    )
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "cancel":
            cancelled.add(request["target"])
        elif request["op"] in OPERATIONS:
            threading.Thread(target=OPERATIONS[request["op"]], args=(request,), daemon=True).start()
        else:
            break
    os._exit(0)


if __name__ == "__main__":
    main()
