"""Two processes of batch B train what one process of batch 2 B does, stop together, and fail with one sentence.

The processes run this file as a script, all their scenarios in one go, as loading torch takes most of their time.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.augmentation import AugmentationConfig
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Event, Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.loop import train
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.patches import PatchSource
from UNetSegmentationLib.training.prepared_case import PreparedCase
from UNetSegmentationLib.training.processes import processes
from UNetSegmentationLib.training.processes.processes import (
    ALONE,
    OtherProcessError,
    Processes,
    join_processes,
    read_environment,
    refuse_several_processes,
)
from UNetSegmentationLib.training.run import run_training

ROOT = Path(__file__).parents[2]
PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),),
)
STEPS = 5
# Each with something that is no plain mean over the images of a batch.
SCENARIOS = {
    "ignored voxels": {"network": {"deep_supervision": True}},
    "batch norm": {"network": {"norm": "batch"}, "loss": "cross_entropy", "loss_options": {"class_weights": [1, 5]}},
    "overlap over the batch": {"loss": "tversky", "loss_options": {"is_batch_wise": True}, "gradient_clip": 0.05},
    "missing channels": {"name": "sequence_fusion", "network": {"in_channels": 2, "sequence_dropout": 0.0}},
}


def network_of(scenario: dict, *, dropout: float = 0.0):
    """Return a network that computes in double precision, in which the order of sums hardly matters."""
    shape = {"in_channels": 1, "num_classes": 2, "features_per_stage": [4, 6], "dropout": dropout}
    torch.manual_seed(0)
    network = build_network(scenario.get("name", "unet"), {**shape, **scenario.get("network", {})}).double()
    network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    return network


def cases(channels: int = 1) -> list[PreparedCase]:
    """Return cases of which each lacks labels in another share of the voxels, and the odd ones all channels but one."""
    made = []
    for index in range(3):
        generator = torch.Generator().manual_seed(index)
        labels = torch.zeros((10, 11, 12), dtype=torch.int16)
        labels[2:7, 3:8, index : index + 5] = 1
        image = labels * 2 + torch.randn(channels, 10, 11, 12, generator=generator)
        image[1:] = image[1:] if index != 1 else torch.nan
        labels[:, : 3 * index] = -1
        foreground = (labels > 0).nonzero().short()
        made.append(
            PreparedCase(
                id=f"c{index}", image=image, padding=torch.zeros(channels), labels=labels, foreground=foreground
            )
        )
    return made


def run(folder: Path, scenario: dict, *, plan: Plan = PLAN, processes: Processes = ALONE, stop=None, dropout=0.0):
    """Train and return the losses and the weights, None for the weights of a training that was cancelled."""
    options = {name: scenario[name] for name in ("loss", "loss_options", "gradient_clip") if name in scenario}
    network = network_of(scenario, dropout=dropout)
    losses: list[float] = []

    def is_cancelled() -> bool:
        return stop is not None and stop(len(losses))

    def note(event: Event) -> None:
        if event["event"] == "step":
            losses.append(event["loss"])

    try:
        train(
            network,
            cases(network.config.in_channels),
            [],
            plan,
            options=TrainingOptions(steps=STEPS, precision="float32", learning_rate=1e-2, **options),
            augmentation=AugmentationConfig(),
            folder=folder,
            device=torch.device("cpu"),
            processes=processes,
            task=Task(note, is_cancelled),
        )
    except CancelledError:
        return losses, None
    return losses, network.state_dict()


def write_data_set(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):
        inside = np.zeros((14, 14, 14), np.uint8)
        inside[3:9, 4:10, number : number + 6] = 1
        image = (rng.normal(0, 10, inside.shape) + 60 * inside).astype(np.float32)
        for name, write in (("images", write_volume), ("labels", write_labelmap)):
            path = folder / name / f"case{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, Volume(image[None], np.eye(4))) if name == "images" else write(
                path, inside, affine_ras=np.eye(4)
            )
    return folder


def job_of(folder: Path, *, name: str, batch_size: int, begins_with: str = "parent") -> TrainingJob:
    plan = folder / f"plan{batch_size}.json"
    plan.write_text(json.dumps(replace(PLAN, batch_size=batch_size).to_dict()), encoding="utf-8")
    return TrainingJob(
        dataset=folder / "data",
        folder=folder / name,
        plan=plan,
        fold=(0, 2),
        device="cpu",
        options=TrainingOptions(steps=4, precision="float32", validate_every=2),
        network_options={"features_per_stage": [4, 6]},
        init=begins_with and str(folder / begins_with),
    )


def play(folder: Path, error: str = "") -> None:
    """Run all scenarios, or the one of an error, in one of two processes and write what came of them."""
    said: dict[str, object] = {}
    try:
        with join_processes() as processes:
            if error:
                fail_together(processes, {"MemoryError": MemoryError, "InputError": InputError}[error]("full"))
            play_together(folder, said, processes)
            run(folder / f"failed{processes.rank}", {}, processes=processes, stop=stop_by_failure)
    except (InputError, OtherProcessError, MemoryError) as caught:
        said["failed"] = f"{type(caught).__name__}: {caught}"
    (folder / f"said{os.environ['RANK']}.json").write_text(json.dumps(said))


def play_together(folder: Path, said: dict[str, object], processes: Processes) -> None:
    own = folder / f"rank{processes.rank}"
    own.mkdir()
    for name, scenario in SCENARIOS.items():
        losses, weights = run(own / name, scenario, processes=processes)
        said[name] = losses
        save_file(weights, own / f"{name}.safetensors")
    said["whole with dropout"], weights = run(own / "d", {}, processes=processes, dropout=0.5)
    # The second process alone hears the wish to stop; the first alone keeps the checkpoint.
    stop = partial(is_asked_at, 0 if processes.is_first else 2)
    stopped = folder / "stopped" / "checkpoint.safetensors"
    said["cancelled"], _ = run(stopped.parent, {}, processes=processes, stop=stop)
    if processes.is_first:
        for name in ("resumed", "alone"):
            (folder / name).mkdir()
            copyfile(stopped, folder / name / stopped.name)
    # A folder that the second process does not see, as on another host.
    place = folder / "resumed" if processes.is_first else own / "nothing"
    said["resumed"], weights = run(place, {}, processes=processes)
    save_file(weights, own / "resumed.safetensors")
    values = processes.share(lambda: job_of(folder / "job", name="two", batch_size=2).to_dict())
    job = TrainingJob.from_dict(values, folder=folder / "job" / "two")
    events = events_of(run_training, job, processes=processes)
    said["events"] = [event["event"] for event in events]
    said["job losses"] = [event["loss"] for event in events if "loss" in event]
    for name, error in (("input", InputError("no")), ("other", KeyError("gone"))):
        try:
            processes.share(partial(fail, error))
        except Exception as caught:  # noqa: BLE001
            said[f"shared {name}"] = f"{type(caught).__name__}: {caught}"
    said["counted"] = count_together(processes)
    said["counted in vain"] = count_together(processes, fails_at=3)
    said["counted until asked"] = count_together(processes, asked_at=2)
    said["counted until refused"] = count_together(processes, refused_at=2)
    try:
        processes.check_same("data set", [str(processes.rank)])
    except InputError as caught:
        said["other data"] = str(caught)


def count(task: Task, *, fails_at: int) -> int:
    for number in range(1, 5):
        task.check(f"stopped before {number}")
        if number == fails_at:
            raise InputError(f"no {number}")
        task.report({"event": "counted", "number": number})
    return number


def count_together(processes: Processes, *, fails_at: int = 0, asked_at: int = 5, refused_at: int = 5) -> list[object]:
    """Return how many events came and what came of them.

    The second process alone hears the wish to stop; the first alone refuses an event.
    """
    seen: list[Event] = []

    def note(event: Event) -> None:
        seen.append(event)
        if processes.is_first and len(seen) == refused_at:
            raise InputError(f"{refused_at} is enough")

    task = Task(note, lambda: not processes.is_first and len(seen) >= asked_at)
    try:
        result: object = processes.share_work(partial(count, fails_at=fails_at), task)
    except (InputError, CancelledError) as error:
        result = f"{type(error).__name__}: {error}"
    return [len(seen), result]


def stop_by_failure(step: int) -> bool:
    """Let the second process fail in a step that the first waits for."""
    if os.environ["RANK"] == "1" and step == 2:
        raise InputError("the second process ran out of luck")
    return False


def is_asked_at(step: int, now: int) -> bool:
    return step == now > 0


def fail_together(processes: Processes, error: Exception) -> None:
    """Let the first process fail at what all wait for, and take longer than the other to come to an end."""
    try:
        processes.share(partial(fail, error))
    finally:
        time.sleep(0.5 if processes.is_first else 0)


def fail(error: Exception) -> None:
    raise error


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    write_data_set(folder / "job" / "data")
    run_training(job_of(folder / "job", name="parent", batch_size=1, begins_with=""))
    play_in_two(folder)
    return folder


def play_in_two(folder: Path, *words: str) -> list[dict]:
    """Run this file in two processes, and return what they said."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), *words],
            env=environment(rank, port),
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=280)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"said{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def said(folder) -> list[dict]:
    return [json.loads((folder / f"said{rank}.json").read_text()) for rank in (0, 1)]


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], *, atol: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=atol), name


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_train_what_one_with_the_double_batch_does(tmp_path, folder, said, name):
    losses, weights = run(tmp_path, SCENARIOS[name], plan=replace(PLAN, batch_size=4))
    # Sums run in another order, which in double precision changes the last of 16 digits; optimiser steps of 1e-2 over
    # gradients of about 1e-3 leave more than enough of them.
    assert said[0][name] == pytest.approx(losses, rel=1e-10)
    assert said[0][name] == said[1][name]
    parts = [load_file(folder / f"rank{rank}" / f"{name}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(value, parts[1][entry]) for entry, value in parts[0].items())
    assert_close(parts[0], weights, atol=1e-9)


def test_the_mean_of_each_process_own_loss_would_be_another():
    """Without this the scenarios could be ones in which nothing has to be gathered."""
    source = PatchSource(cases(), replace(PLAN, batch_size=4), TrainingOptions(), AugmentationConfig())
    shares = [(labels[:2] < 0).float().mean() - (labels[2:] < 0).float().mean() for labels in (source.batch(0)[1],)]
    source.close()
    assert abs(float(shares[0])) > 0.01


def test_parts_of_a_batch_are_the_batch():
    plan = replace(PLAN, batch_size=6)
    make = partial(PatchSource, cases(), plan, TrainingOptions(seed=-3), AugmentationConfig())
    sources = [make(), *(make(part=Processes(count=3, rank=rank).part_of(6)) for rank in range(3))]
    whole, *parts = (source.batch(7) for source in sources)
    for source in sources:
        source.close()
    for entry in (0, 1):
        assert torch.equal(whole[entry], torch.cat([part[entry] for part in parts]))
    assert not torch.equal(whole[0][0], whole[0][1])


def test_processes_drop_other_features(said):
    assert said[0]["whole with dropout"] == said[1]["whole with dropout"]
    assert said[0]["whole with dropout"] != said[0]["ignored voxels"]


def test_a_wish_to_stop_in_any_process_ends_all_and_the_first_keeps_the_checkpoint(folder, said):
    assert len(said[0]["cancelled"]) == len(said[1]["cancelled"]) == 2
    assert (folder / "stopped" / "checkpoint.safetensors").is_file()


def test_resumed_by_two_or_by_one_process_equals_uninterrupted(folder, said):
    plain, weights = run(folder / "whole", {}, plan=replace(PLAN, batch_size=4))
    for rank in (0, 1):
        assert said[rank]["cancelled"] + said[rank]["resumed"] == pytest.approx(plain, rel=1e-10)
    assert_close(load_file(folder / "rank1" / "resumed.safetensors"), weights, atol=1e-9)
    # The plan's batch of two is that of each of two processes, so that one goes on with four.
    rest, resumed = run(folder / "alone", {})
    assert said[0]["cancelled"] + rest == pytest.approx(plain, rel=1e-10)
    assert_close(resumed, weights, atol=1e-9)


def test_a_number_of_processes_that_cannot_share_the_batch_is_refused():
    with pytest.raises(InputError, match="4 patches a step, which 3 processes cannot share evenly: .* one of 1, 2, 4"):
        Processes(count=3).part_of(4)


def test_the_first_process_alone_writes_the_model_and_both_see_the_same(folder, said):
    assert said[0]["events"][-1] == "done"
    assert said[1]["events"][-1] == "end"
    assert said[0]["events"].count("validation") == said[1]["events"].count("validation") == 2
    model = folder / "job" / "two"
    written = sorted(path.name for path in model.iterdir())
    assert written == ["CARD.md", "model.json", "training.jsonl", "weights.safetensors"]
    followed = said[1]["events"]
    assert said[0]["events"][: len(followed)] == followed
    assert followed.count("read") >= followed.count("prepared") > 0
    record = [json.loads(line) for line in (model / "training.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in record][:4] == ["initialised", "start", "validation", "validation"]
    assert json.loads((model / "model.json").read_text())["training"]["processes"] == 2
    job = job_of(folder / "job", name="one", batch_size=4)
    losses = [event["loss"] for event in events_of(run_training, job) if "loss" in event]
    # In float32 with its 7 digits.
    assert said[1]["job losses"] == pytest.approx(losses, rel=1e-4)
    one, two = (load_file(folder / "job" / name / "weights.safetensors") for name in ("one", "two"))
    assert_close(one, two, atol=2e-3)


def test_errors_of_the_first_process_reach_the_others(said):
    assert said[0]["shared input"] == said[1]["shared input"] == "InputError: no"
    assert said[0]["shared other"] == "KeyError: 'gone'"
    assert said[1]["shared other"] == "OtherProcessError: 'gone'"
    assert "other data" not in said[0]
    assert said[1]["other data"] == "process 1 sees a different data set than process 0: use the same on all hosts"


def test_work_of_the_first_process_is_followed_by_the_others_which_may_stop_it(said):
    for process in said:
        assert process["counted"] == [4, 4]
        assert process["counted in vain"] == [2, "InputError: no 3"]
        assert process["counted until asked"] == [2, "CancelledError: stopped before 3"]
        assert process["counted until refused"] == [2, "InputError: 2 is enough"]


@pytest.mark.parametrize("error", ["MemoryError", "InputError"])
def test_an_error_of_the_first_process_is_told_by_it_alone(tmp_path, error):
    said = play_in_two(tmp_path, error)
    assert said[0]["failed"] == f"{error}: full"
    assert said[1]["failed"] == "OtherProcessError: process 0: full"


def test_a_process_that_fails_ends_the_others_and_they_know_why(said):
    assert said[1]["failed"] == "InputError: the second process ran out of luck"
    assert said[0]["failed"] == "OtherProcessError: process 1: the second process ran out of luck"


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes() as processes:
        assert processes is ALONE
    assert read_environment({"WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is 2 but LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({**environment(0, 1), "RANK": "first"}, "RANK is 'first', which is not a number"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        read_environment(values)


def test_processes_that_cannot_be_reached_are_named(monkeypatch):
    for name, value in environment(1, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_JOINING", timedelta(seconds=1))
    with pytest.raises(InputError, match="process 1 of 2 cannot join the others at 127.0.0.1"), join_processes():
        pass


def test_a_torch_without_processes_is_named(monkeypatch):
    for name, value in environment(0, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(InputError, match="cannot train in several processes"), join_processes():
        pass


def test_a_store_that_is_gone_means_that_another_process_failed():
    class Gone:
        def compare_set(self, _key, _expected, _desired):
            raise RuntimeError("connection reset")

    assert not Processes(count=2, _store=Gone()).is_first_to_fail(ValueError("later"))


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        ("cuda:1", "cuda", "device is 'cuda:1', but each of several processes picks its own"),
        ("auto", "mps", "cannot share this computer's GPU"),
        ("auto", "cuda", "process 2 of this host has no GPU to itself, there are 2"),
    ],
)
def test_a_device_that_processes_cannot_share_is_refused(monkeypatch, name, found, words):
    monkeypatch.setattr(processes, "choose_device", lambda _name: torch.device(found))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=words):
        Processes(count=3, rank=2, local_rank=2).choose_device(name)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    taken = []
    monkeypatch.setattr(processes, "choose_device", lambda _name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert Processes(count=4, rank=3, local_rank=1).choose_device("auto") == torch.device("cuda:1")
    assert taken == [1]


@pytest.mark.parametrize("count", [1, 2])
def test_on_the_cpu_processes_share_the_computer(count):
    assert Processes(count=count).choose_device("cpu").type == "cpu"


def test_what_several_processes_cannot_train_is_refused(tmp_path, monkeypatch, capsys):
    two = Processes(count=2)
    norm = {"network": {"in_channels": 2, "norm": "batch"}, "name": "sequence_fusion"}
    with pytest.raises(InputError, match="norm=instance, or in one process"):
        two.join(network_of(norm))
    with pytest.raises(InputError, match="need a single process"):
        train(
            network_of({}),
            cases(),
            [],
            PLAN,
            options=TrainingOptions(),
            augmentation=AugmentationConfig(),
            folder=tmp_path,
            device=torch.device("cpu"),
            extra_loss=lambda *_: torch.zeros(()),
            processes=two,
        )
    for name, value in environment(0, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="this runs in a single process"):
        refuse_several_processes("this")
    assert main(["finetune", "m", "d", "-o", str(tmp_path / "f")]) == 2
    assert "runs in a single process" in capsys.readouterr().err


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(Path(sys.argv[1]), *sys.argv[2:])
