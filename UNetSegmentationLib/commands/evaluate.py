"""`unetseg evaluate`: compare a model with the reference segmentations of a data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..image.labels import Label
from ..models.description import ModelDescription
from .contract import COMMANDS, Command, add_device_argument, add_quiet_argument
from .parts.loading import without_collection
from .parts.terminal import Failures, ProgressBar, figure, rounded, write_json, write_table

if TYPE_CHECKING:
    from ..cases.dataset import Case
    from ..evaluation.cases import CaseFigures

COLUMNS = (
    ("dice", "Dice"),
    ("iou", "IoU"),
    ("hd_mm", "HD mm"),
    ("hd95_mm", "HD95 mm"),
    ("assd_mm", "ASSD mm"),
    ("surface_dice", "surface Dice"),
    ("relative_volume_difference", "volume diff."),
)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="ID of an installed model, or a model folder")
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="nnU-Net raw dataset folder, or a folder with images/ and labels/ whose file names match",
    )
    parser.add_argument(
        "--held-back", action="store_true", help="only the cases that were held back from the model's training"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_quiet_argument(parser)
    add_device_argument(parser)


def _run(arguments: Namespace, out: TextIO) -> int:
    from ..cases.dataset import find_cases
    from ..models.installed import find_model

    model = find_model(arguments.model)
    cases = find_cases(arguments.dataset)
    if arguments.held_back:
        cases = _held_back(cases, model.description)
    with without_collection():
        from ..evaluation.cases import evaluate
        from ..inference.predictor import Predictor
    predictor = Predictor(model.folder, device=arguments.device)
    results: list[CaseFigures] = []
    failures = Failures(is_debug=arguments.debug)
    with ProgressBar(is_quiet=arguments.quiet) as bar:
        for number, case in enumerate(cases):
            bar(number / len(cases), case.id)
            try:
                results += evaluate(predictor, [case])
            except Exception as error:  # noqa: BLE001  # one bad case must not cost the results of the others
                bar.clear()
                failures.note(case.id, error)
    if arguments.json:
        document = _document(results, model.description)
        write_json(out, {"model": model.description.id, **rounded(document), "errors": failures.errors})
    elif results:
        _write_figures(out, results, model.description)
    return failures.status


def _held_back(cases: Sequence[Case], description: ModelDescription) -> list[Case]:
    wanted = description.training.get("held_back_cases")
    if not wanted:
        raise InputError(f"model '{description.id}' has no record of held-back cases: leave out --held-back")
    found = [case for case in cases if case.id in wanted]
    if not found:
        raise InputError(
            f"none of the cases held back for '{description.id}' is in this data set: use its training data set"
        )
    return found


def _document(results: Sequence[CaseFigures], description: ModelDescription) -> dict[str, Any]:
    names = {label.value: label.name for label in description.labels}
    cases = [
        {**asdict(result), "labels": {names[value]: figures for value, figures in result.labels.items()}}
        for result in results
    ]
    return {"cases": cases, "summary": {names[value]: rows for value, rows in _summary(results).items()}}


def _summary(results: Sequence[CaseFigures]) -> dict[int, dict[str, dict[str, float]]]:
    from ..evaluation.metrics import summarize

    return summarize(result.labels for result in results)


def _write_figures(out: TextIO, results: Sequence[CaseFigures], description: ModelDescription) -> None:
    rows = [_row(result.case, label, result.labels[label.value]) for result in results for label in description.labels]
    means = _summary(results)
    for label in description.labels:
        rows.append(_row("mean", label, {name: row["finite_mean"] for name, row in means[label.value].items()}))
    header = ("case", "label", *(title for _, title in COLUMNS))
    write_table(out, header, rows, right=range(2, len(header)))


def _row(case: str, label: Label, figures: Mapping[str, float]) -> tuple[str, ...]:
    return (case, label.name, *(figure(figures[name]) for name, _ in COLUMNS))


COMMANDS.register("evaluate", title="evaluate a model against reference segmentations")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Segment the cases of a data set and compare the results with the references. Reports metrics "
        "per case and label, and their means over the cases in which they are finite.",
    )
)
