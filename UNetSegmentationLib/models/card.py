"""The model card, generated from the model's description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..core.files import write_text
from .description import CARD_FILE, ModelDescription

_OVERLAPS = (("dice", "Dice"), ("iou", "IoU"))
_DISTANCES = (("hd95_mm", "HD95 (mm)"), ("assd_mm", "ASSD (mm)"), ("surface_dice", "surface Dice at 1 mm"))


def write_card(folder: Path, description: ModelDescription, *, origin: Sequence[str] | None = None) -> None:
    """Write CARD.md of a model folder atomically.

    Args:
        folder: Model folder.
        description: The model.
        origin: For a model from another tool: lines on its origin and on differences.
    """
    write_text(folder / CARD_FILE, card_of(description) if origin is None else _imported_card_of(description, origin))


def card_of(description: ModelDescription) -> str:
    """Return the text of CARD.md: the model's purpose, training data, accuracy, limitations and licence."""
    training = description.training
    # Radiographs seldom state their pixel size: distances would have unknown units.
    shown = _OVERLAPS if description.plan.longest_side else (*_OVERLAPS, *_DISTANCES)
    lines = [
        f"# {description.title}",
        "",
        f"Segments {', '.join(label.name for label in description.labels)} in "
        f"{', '.join(channel.name for channel in description.channels)} images ({description.preset.upper()} preset). "
        f"Network `{description.network}`, id `{description.id}`.",
        "",
        *_demonstration_of(description),
        "Not a medical device: every result must be checked by a person.",
        "",
        "## Data",
        f"- Source: {training.get('data') or 'not stated'}",
        f"- Licence of the data: {training.get('data_licence') or 'not stated'}",
        f"- {_split_of(training)}",
        f"- {training.get('steps')} steps in {training.get('minutes')} minutes.",
        *_beginning_of(training),
        *_replay_of(training),
        "",
        f"## Accuracy on the {description.figures.get('cases', 0)} held-back cases (means)",
        "| label | " + " | ".join(title for _, title in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for name, figures in description.figures.get("labels", {}).items():
        values = [f"{figures[key]:.3f}" if key in figures else "" for key, _ in shown]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    lines += _folds_of(description)
    lines += _postprocess_of(description)
    lines += _configurations_of(description)
    lines += _descent_of(description)
    spacing = description.plan.spacing_in_words
    lines += [
        "",
        "## Limitations",
        f"- Made for images like those above{f', at about {spacing}' if spacing else ''}; "
        "other scanners, age groups and diseases were not evaluated.",
        "",
        "## Licence",
        description.licence or "not stated",
        "",
    ]
    return "\n".join(lines)


def _imported_card_of(description: ModelDescription, origin: Sequence[str]) -> str:
    found = ", ".join(label.name for label in description.labels)
    channels = ", ".join(channel.name for channel in description.channels)
    return "\n".join(
        [
            f"# {description.title}",
            "",
            f"Segments {found} in {channels} images. Network `{description.network}`, id `{description.id}`.",
            "",
            "Not a medical device: every result must be checked by a person.",
            "",
            "## Origin",
            *(f"- {line}" for line in origin),
            "",
            "## Accuracy",
            "Not evaluated: `unetseg evaluate` evaluates the model on your cases.",
            "",
            "## Licence",
            description.licence or "not stated: ask the model's authors",
            "",
        ]
    )


def _demonstration_of(description: ModelDescription) -> list[str]:
    if not description.is_demonstration:
        return []
    return [
        "**Demonstration only: too inaccurate for any other use.**",
        "",
    ]


def _split_of(training: dict[str, Any]) -> str:
    """Return how many cases were trained on and held back; subjects are mentioned if the data set has them."""
    cases, held_back = training.get("cases"), len(training.get("held_back_cases", []))
    # For models trained before this was recorded: data without subjects have equal numbers.
    has_subjects = training.get("has_subjects", cases != training.get("subjects"))
    unknown = "The data set does not name subjects: every case was counted as a separate subject."
    if folds := training.get("folds"):
        return (
            f"Trained on {cases} cases in {len(folds)} folds: each of the {len(folds)} networks was trained on all "
            "folds but one, and the model averages them. "
        ) + (f"No subject is in two folds; there are {training.get('subjects')} subjects." if has_subjects else unknown)
    if not has_subjects:
        return f"Trained on {cases} cases; {held_back} other cases were held back. {unknown}"
    return (
        f"Trained on {cases} cases of {training.get('subjects')} subjects; {held_back} cases of "
        f"{training.get('held_back_subjects')} other subjects were held back. No subject is in both sets."
    )


def _beginning_of(training: dict[str, Any]) -> list[str]:
    """Return what the weights were initialised from, if not at random."""
    beginning = training.get("init", {})
    if "model" in beginning:
        steps = f", after {beginning['earlier_steps']} steps" if beginning.get("earlier_steps") else ""
        return [f"- Initialised with the weights of `{beginning['model']}`{steps}; its data and licence apply as well."]
    return []


def _replay_of(training: dict[str, Any]) -> list[str]:
    replay = training.get("replay")
    if not replay:
        return []
    shared = replay.get("shared")
    place = f" of `{shared['model']}`, in the folder beside this one," if shared else ""
    return [
        f"- `replay.safetensors`{place} contains "
        f"{replay.get('rehearsal', 0) + replay.get('sentinels', 0)} small crops of the training images with their "
        f"labels, for fine-tuning, under the licence of the data: {replay.get('licence') or 'not stated'}."
    ]


def _folds_of(description: ModelDescription) -> list[str]:
    """Return the results over the folds of an ensemble, or [] for other models."""
    folds = description.figures.get("folds")
    if not folds:
        return []
    lines = [
        "",
        f"Every case was evaluated with the one network of {len(folds)} that was not trained on it. The model averages "
        "all of them, which can only be evaluated on new subjects. Mean and standard deviation of Dice over the "
        f"{len(folds)} folds:",
        "",
        "| label | Dice | by fold |",
        "|---|---|---|",
    ]
    for label in description.labels:
        values = [fold["dice"][label.name] for fold in folds if label.name in fold["dice"]]
        if values:
            cell = f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"
            lines.append(f"| {label.name} | {cell} | {', '.join(f'{value:.3f}' for value in values)} |")
    return lines


def _configurations_of(description: ModelDescription) -> list[str]:
    """Return the comparison of configurations, or [] if there was only one."""
    choice = description.figures.get("configurations")
    if not choice:
        return []
    lines = [
        "",
        "## Configurations",
        f"Trained with equal shares of the budget and compared on these {choice['subjects']} subjects, without "
        "post-processing; the cheapest within one standard error of the best (paired difference) was kept.",
        "",
        "| configuration | mean Dice | behind the best | operations per mm³ | kept |",
        "|---|---|---|---|---|",
    ]
    for row in choice["rows"]:
        error = "" if row["error"] is None else f" ± {row['error']:.4f}"
        cells = (f"{row['mean_dice']:.4f}", f"{row['behind']:.4f}{error}", f"{row['operations_per_mm3']:,}")
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {'yes' if row['is_chosen'] else 'no'} |")
    lines += ["", "The configuration was chosen on the same cases, which makes the results above optimistic."]
    if choice["cross_fitted"] is not None:
        lines[-1] += (
            " When one half of the subjects is used to choose and the other to evaluate, and vice versa, mean Dice is "
            f"{choice['cross_fitted']:.4f}."
        )
    return lines


def _postprocess_of(description: ModelDescription) -> list[str]:
    """Return which steps were tried and what they gained, or [] if none were to be chosen."""
    choice = description.figures.get("postprocess")
    if not choice:
        return []
    lines = ["", "## Post-processing"]
    if "reason" in choice:
        return [*lines, f"None was tried: {choice['reason']}."]
    steps = ", ".join(f"`{step}`" for step in choice["steps"]) or "None"
    lines += [
        f"{steps}, chosen on these {choice['cases']} cases of {choice['subjects']} subjects: a step is kept if it "
        "lowers the mean Dice of no label and raises that of at least one, over all subjects and in each of two "
        "halves. The results above are those after the steps.",
        "",
        "| step | label | change of mean Dice | in one half | in the other | kept |",
        "|---|---|---|---|---|---|",
    ]
    for row in choice["tried"]:
        if row["label"] is None:
            lines.append(f"| `{row['step']}` | | changes nothing | | | no |")
            continue
        cells = (row["label"], *(f"{gain:+.4f}" for gain in (row["gain"], *row["halves"])))
        lines.append(f"| `{row['step']}` | {' | '.join(cells)} | {'yes' if row['is_chosen'] else 'no'} |")
    before = ", ".join(f"{name} {dice:.3f}" for name, dice in choice["dice_before"].items())
    return [*lines, "", f"Mean Dice without any step, over subjects: {before}."]


def _descent_of(description: ModelDescription) -> list[str]:
    """Return the parent and the gate of a fine-tuned model, or [] for other models."""
    gate = description.figures.get("gate")
    if not gate:
        return []
    lines = [
        "",
        "## Parent model",
        f"Fine-tuned from `{description.parent}`. The data and licence above are the parent's; the numbers of cases "
        "are those of the local cases.",
        "",
        f"Gate: **{gate['verdict']}**.",
        *(f"- {reason}." for reason in gate["reasons"]),
        "",
        "| mean Dice on | cases | parent | new | worst change |",
        "|---|---|---|---|---|",
    ]
    for name, title in (("sentinel", "crops of the parent's training images"), ("local", "held-back local cases")):
        if entry := gate[name]:
            cells = (f"{entry['old']:.3f}", f"{entry['new']:.3f}", f"{entry['worst_change']:+.3f}")
            lines.append(f"| {title} | {entry['cases']} | {' | '.join(cells)} |")
    return lines
