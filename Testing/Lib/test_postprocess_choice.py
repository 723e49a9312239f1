"""Post-processing is chosen where it helps on all subjects and in each half of them, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from UNetSegmentationLib.cases.dataset import find_cases
from UNetSegmentationLib.core.event_log import TrainingRecord
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.evaluation.cases import evaluate, figures_of_model
from UNetSegmentationLib.evaluation.held_back import TrainedModel, load_predicted, measure_trained, save_predicted
from UNetSegmentationLib.evaluation.metrics import evaluate_case
from UNetSegmentationLib.evaluation.postprocess_choice import (
    FEWEST_SUBJECTS,
    PostprocessChoice,
    PredictedCase,
    choose_postprocess,
    component_volumes_mm3,
    figures_with,
    in_halves,
    smallest_volume_mm3,
)
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.card import card_of
from UNetSegmentationLib.models.description import read_description, write_description
from UNetSegmentationLib.postprocess import STEPS, apply_steps

SPACING_MM = (2.0, 1.0, 1.0)
LABELS = (Label(value=1, name="organ", color=(255, 0, 0)), Label(value=3, name="lesion", color=(0, 255, 0)))
SUBJECTS = [f"s{index:02d}" for index in range(10)]
ISLAND = (slice(9, 11), slice(14, 17), slice(14, 17))


def reference(*, second_part: bool = False) -> np.ndarray:
    """Return an organ and two lesions of equal size, in a volume with room for islands."""
    labelmap = np.zeros((12, 18, 18), np.uint8)
    labelmap[1:6, 1:7, 1:7] = 1
    labelmap[1:4, 10:13, 1:4] = labelmap[6:9, 10:13, 8:11] = 3
    if second_part:
        labelmap[ISLAND] = 1
    return labelmap


def pack(found: np.ndarray, truth: np.ndarray, subject: str, case: str = "") -> PredictedCase:
    return PredictedCase.pack(found, truth, case=case or subject, subject=subject, spacing_mm=SPACING_MM)


def chosen(cases: list[PredictedCase], labels: tuple[Label, ...], **options: float) -> PostprocessChoice:
    return choose_postprocess(cases, labels, **options)


def with_island(truth: np.ndarray) -> np.ndarray:
    found = truth.copy()
    found[ISLAND] = 1
    return found


def test_nothing_is_chosen_where_nothing_can_help():
    choice = chosen([pack(reference(), reference(), name) for name in SUBJECTS], LABELS, min_volume_mm3=20)
    assert choice.steps == ()
    assert choice.reason == ""
    assert choice.dice_before == {"organ": 1.0, "lesion": 1.0}
    # What is tried is told all the same; the lesions have two parts of which one would be lost.
    assert {row["step"].partition(":")[0] for row in choice.tried} == {
        "keep_largest_component",
        "remove_small",
        "fill_holes",
    }
    (lost,) = [row for row in choice.tried if row["step"] == "keep_largest_component:regions=3"]
    assert lost == {
        "step": "keep_largest_component:regions=3",
        "label": "lesion",
        "gain": pytest.approx(-1 / 3, abs=1e-4),
        "halves": [pytest.approx(-1 / 3, abs=1e-4)] * 2,
        "is_chosen": False,
    }


def test_islands_in_every_case_are_removed_from_their_label_alone():
    cases = [pack(with_island(reference()), reference(), name) for name in SUBJECTS]
    choice = chosen(cases, LABELS)
    assert choice.steps == ("keep_largest_component:regions=1",)
    # 5 x 6 x 6 voxels and an island of 2 x 3 x 3: Dice 2 * 180 / (198 + 180).
    assert choice.dice_before["organ"] == pytest.approx(360 / 378, abs=1e-4)
    (row,) = [row for row in choice.tried if row["is_chosen"]]
    assert (row["label"], row["gain"]) == ("organ", pytest.approx(1 - 360 / 378, abs=1e-4))
    assert all(figures[1]["dice"] == 1 for _, figures in figures_with(cases, (1, 3), choice.steps))


def test_every_label_that_gains_stands_in_one_step():
    truth = reference()
    truth[6:9, 10:13, 8:11] = 0
    found = with_island(truth)
    found[6:8, 14:16, 1:3] = 3
    choice = chosen([pack(found, truth, name) for name in SUBJECTS], LABELS)
    assert choice.steps == ("keep_largest_component",)
    # Organ and lesion that touch are one object: what lies apart of both is not theirs.
    truth[1:4, 7:10, 1:4] = 3
    found[1:4, 7:10, 1:4] = 3
    choice = chosen([pack(found, truth, name) for name in SUBJECTS], LABELS)
    assert choice.steps == ("keep_largest_component:regions=1+3",)


def test_halves_that_disagree_choose_nothing():
    first, second = in_halves(SUBJECTS)
    assert sorted(first + second) == SUBJECTS
    assert len(first) == len(second)
    # In one half the second part is an island, in the other a small true part: less is lost than gained.
    cases = [pack(with_island(reference()), reference(), name) for name in first]
    true_part = reference(second_part=True)
    true_part[9:11, 14:17, 15:17] = 0
    cases += [pack(true_part, true_part, name) for name in second]
    choice = chosen(cases, LABELS)
    (row,) = [row for row in choice.tried if row["step"] == "keep_largest_component:regions=1"]
    assert row["gain"] > 0.01
    assert row["halves"][1] < 0
    assert choice.steps == ()
    # Nor do islands in one half alone.
    cases = [pack(with_island(reference()), reference(), name) for name in first]
    assert chosen(cases + [pack(reference(), reference(), n) for n in second], LABELS).steps == ()


def test_too_few_subjects_choose_nothing_however_many_cases_they_have():
    few = SUBJECTS[: FEWEST_SUBJECTS - 1]
    cases = [pack(with_island(reference()), reference(), s, f"{s}-{side}") for s in few for side in ("left", "right")]
    choice = chosen(cases, LABELS)
    assert (choice.steps, choice.cases, choice.subjects) == ((), 14, 7)
    assert "fewer than 8 cannot tell a step that helps from chance" in choice.to_dict()["reason"]
    cases.append(pack(with_island(reference()), reference(), "one more"))
    assert chosen(cases, LABELS).steps == ("keep_largest_component:regions=1",)


def test_a_false_find_that_is_removed_counts_as_a_gain():
    """Dice is undefined where neither map shows a label: such cases must not drop out of the comparison."""
    truth = reference()
    truth[truth == 3] = 0
    found = truth.copy()
    found[9, 15, 15] = 3
    choice = chosen([pack(found, truth, name) for name in SUBJECTS], LABELS, min_volume_mm3=20)
    assert choice.steps == ("keep_largest_component:regions=1+3",)
    # 2 mm3 apart from nothing: only the volume tells it from a lesion.
    only_lesion = [pack(np.where(found == 3, found, 0), np.zeros_like(truth), name) for name in SUBJECTS]
    assert chosen(only_lesion, LABELS, min_volume_mm3=20).steps == ("remove_small:min_volume_mm3=20",)
    assert chosen(only_lesion, LABELS).steps == ()


def test_holes_are_filled_where_references_have_none():
    found = reference()
    found[2:5, 2:5, 2:5] = 0
    cases = [pack(found, reference(), name) for name in SUBJECTS]
    assert chosen(cases, LABELS).steps == ("fill_holes",)
    assert chosen([pack(found, found, name) for name in SUBJECTS], LABELS).steps == ()


@given(st.integers(0, 10_000), st.floats(0.0, 0.3))
@settings(max_examples=25)
def test_no_choice_lowers_the_mean_dice_of_any_label(seed, noise):
    rng = np.random.default_rng(seed)
    cases = []
    for name in SUBJECTS:
        truth = np.zeros((4, 10, 10), np.uint8)
        truth[:, 2:8, 2:5], truth[:, 2:8, 5:8] = 1, 3
        found = np.where(rng.random(truth.shape) < noise, rng.choice([0, 1, 3], truth.shape), truth)
        cases.append(pack(found.astype(np.uint8), truth, name))
    choice = chosen(cases, LABELS, min_volume_mm3=5)
    for value in (1, 3):
        before, after = (
            np.mean([figures[value]["dice"] for _, figures in figures_with(cases, (1, 3), steps)])
            for steps in ((), choice.steps)
        )
        assert after >= before - 1e-9


@pytest.mark.parametrize("steps", [(), ("keep_largest_component",), ("remove_small:min_volume_mm3=9", "fill_holes")])
@pytest.mark.parametrize("shape", [(1, 20, 21), (2, 16, 16), (9, 12, 11)])
def test_figures_of_packed_cases_are_those_of_whole_volumes(tmp_path, shape, steps):
    rng = np.random.default_rng(shape[0])
    found, truth = (rng.choice([0, 1, 3], shape, p=[0.5, 0.3, 0.2]).astype(np.uint8) for _ in range(2))
    for labelmap in (found, truth):
        labelmap[:, :3], labelmap[:, :, -4:] = 0, 0
    packed = pack(found, truth, "s")
    assert np.prod(packed.shape) < found.size
    save_predicted(tmp_path / "found.safetensors", [packed])
    ((case, figures),) = figures_with(load_predicted(tmp_path / "found.safetensors"), (1, 3), steps)
    assert case == packed
    expected = evaluate_case(apply_steps(found, SPACING_MM, steps), truth, (1, 3), SPACING_MM)
    assert figures == {value: pytest.approx(row, nan_ok=True) for value, row in expected.items()}


def test_a_case_without_any_label_can_be_packed():
    empty = np.zeros((1, 5, 5), np.uint8)
    ((_, figures),) = figures_with([pack(empty, empty, "s")], (1,), tuple(STEPS))
    assert np.isnan(figures[1]["dice"])


def test_the_smallest_volume_leaves_out_what_annotators_strayed():
    labelmap = np.zeros((3, 20, 20), np.uint8)
    labelmap[0, 0, :7] = 1  # 7 voxels of 2 mm3
    labelmap[1, 10:19, 10:19] = 2
    stray = labelmap.copy()
    stray[2, 5, 5] = 1
    plain, odd, empty = (component_volumes_mm3(a, SPACING_MM) for a in (labelmap, stray, np.zeros_like(labelmap)))
    assert (plain, odd[1], empty) == ({1: [14.0], 2: [162.0]}, [14.0, 2.0], {})
    assert smallest_volume_mm3([plain] * 30, largest_voxel_mm3=2.0) == 14.0
    assert smallest_volume_mm3([plain] * 30 + [odd], largest_voxel_mm3=2.0) == 14.0
    # Labels of single voxels leave nothing that could be removed; nor do no labels.
    assert smallest_volume_mm3([odd] * 30, largest_voxel_mm3=2.0) is None
    assert smallest_volume_mm3([empty], largest_voxel_mm3=2.0) is None


def write_case(folder: Path, name: str, array: np.ndarray, labelmap: np.ndarray) -> None:
    write_volume(folder / "images" / f"{name}.nii.gz", Volume(array[None], np.eye(4)))
    write_labelmap(folder / "labels" / f"{name}.nii.gz", labelmap, affine_ras=np.eye(4))


def test_model_and_card_have_the_chosen_steps_and_the_figures_that_evaluate_finds(tmp_path, tiny_model):
    """The references are what an untrained network finds, less its islands: these are in every case."""
    folder, data = tiny_model(labels=1), tmp_path / "data"
    for name in ("images", "labels"):
        (data / name).mkdir(parents=True)
    for index in range(FEWEST_SUBJECTS):
        noise = np.random.default_rng(index).normal(0, 1, (14, 16, 16))
        array = ndimage.gaussian_filter(noise, 2).astype(np.float32)
        found = Predictor(folder).segment(Volume(array[None], np.eye(4))).labelmap
        write_case(data, f"c{index}", array, apply_steps(found, (1, 1, 1), ["keep_largest_component"]))
    cases = find_cases(data)
    record = TrainingRecord(tmp_path / "record.jsonl")
    model = TrainedModel(
        folder=folder,
        device="cpu",
        chooses_postprocess=True,
        description=read_description(folder),
        training_cases=cases,
        held_back=cases,
        record=record,
    )
    seen = []
    described = measure_trained(model, Task(seen.append))
    kinds = [event["event"] for event in seen]
    assert list(dict.fromkeys(kinds)) == ["segmented", "read", "compared", "measured"]
    for kind in ("segmented", "read", "measured"):
        told = [(event["case"], event["number"], event["of"]) for event in seen if event["event"] == kind]
        assert told == [(case.id, number, len(cases)) for number, case in enumerate(cases, start=1)]
    assert described.postprocess[:1] == ("keep_largest_component",)
    assert described.figures["labels"]["Structure 1"]["dice"] == 1.0
    assert described.figures["postprocess"]["dice_before"]["Structure 1"] < 0.999
    write_description(folder, described)
    results = list(evaluate(Predictor(folder), cases))
    expected = figures_of_model(described.labels, results)
    assert {name: described.figures[name] for name in expected} == expected
    events = TrainingRecord.read(record.path)
    assert [event["event"] for event in events] == ["postprocess"] + ["evaluation"] * FEWEST_SUBJECTS
    assert events[0]["steps"] == list(described.postprocess)

    card = card_of(described)
    assert "## Post-processing" in card
    assert "`keep_largest_component`" in card
    assert "chosen on these 8 cases of 8 subjects" in card
    plain = measure_trained(replace(model, chooses_postprocess=False))
    assert plain.postprocess == ()
    assert "postprocess" not in plain.figures
    assert "## Post-processing" not in card_of(plain)
    few = measure_trained(replace(model, held_back=cases[:3]))
    assert "3 subjects were held back; fewer than 8" in card_of(few)
