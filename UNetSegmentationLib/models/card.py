"""The card of a model, written from its description."""

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
        description: Of the model.
        origin: Of a model of another tool: lines on where it comes from and what differs.
    """
    write_text(folder / CARD_FILE, card_of(description) if origin is None else _imported_card_of(description, origin))


def card_of(description: ModelDescription) -> str:
    """Return CARD.md: what the model is for, what it was trained on, how good it is, its limits and its licence."""
    training = description.training
    # A radiograph seldom tells the size of its pixels: distances would be in units that nobody knows.
    shown = _OVERLAPS if description.plan.longest_side else (*_OVERLAPS, *_DISTANCES)
    lines = [
        f"# {description.title}",
        "",
        f"Finds {', '.join(label.name for label in description.labels)} in "
        f"{', '.join(channel.name for channel in description.channels)} images ({description.preset.upper()} preset). "
        f"Network `{description.network}`, id `{description.id}`.",
        "",
        *_demonstration_of(description),
        "Not a medical device: a person must check every result.",
        "",
        "## Data",
        f"- Source: {training.get('data') or 'not stated'}",
        f"- Licence of the data: {training.get('data_licence') or 'not stated'}",
        f"- {_split_of(training)}",
        f"- {training.get('steps')} steps in {training.get('minutes')} minutes.",
        *_beginning_of(training),
        *_replay_of(training),
        "",
        f"## Figures on the {description.figures.get('cases', 0)} cases held back (means)",
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
        "## Limits",
        f"- Made for images like those above{f', at about {spacing}' if spacing else ''}; "
        "other scanners, ages and diseases were not measured.",
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
            f"Finds {found} in {channels} images. Network `{description.network}`, id `{description.id}`.",
            "",
            "Not a medical device: a person must check every result.",
            "",
            "## Origin",
            *(f"- {line}" for line in origin),
            "",
            "## Figures",
            "Not measured here: `unetseg evaluate` measures it on your cases.",
            "",
            "## Licence",
            description.licence or "not stated: ask whoever trained it",
            "",
        ]
    )


def _demonstration_of(description: ModelDescription) -> list[str]:
    if not description.is_demonstration:
        return []
    return ["**A demonstration: it shows how things work and is too weak for any other use.**", ""]


def _split_of(training: dict[str, Any]) -> str:
    """Return how many cases were learnt from and held back; of persons only what the data set told of them."""
    cases, held_back = training.get("cases"), len(training.get("held_back_cases", []))
    # Models that were trained before it was recorded: equal numbers are what data without subjects give.
    has_subjects = training.get("has_subjects", cases != training.get("subjects"))
    unknown = "The data do not tell which cases are of one person: every case counted as a person of its own."
    if folds := training.get("folds"):
        return (
            f"Trained on {cases} cases in {len(folds)} parts: each of the {len(folds)} networks learnt from all parts "
            "but one, and the model is their mean. "
        ) + (f"No subject is in two parts; there are {training.get('subjects')}." if has_subjects else unknown)
    if not has_subjects:
        return f"Trained on {cases} cases; {held_back} other cases were held back. {unknown}"
    return (
        f"Trained on {cases} cases of {training.get('subjects')} subjects; {held_back} cases of "
        f"{training.get('held_back_subjects')} other subjects were held back. No subject is on both sides."
    )


def _beginning_of(training: dict[str, Any]) -> list[str]:
    """Return what the training began with, where that was not drawn."""
    beginning = training.get("init", {})
    if "model" in beginning:
        steps = f", after {beginning['earlier_steps']} steps" if beginning.get("earlier_steps") else ""
        return [f"- Began with the weights of `{beginning['model']}`{steps}, whose data and licence count too."]
    return []


def _replay_of(training: dict[str, Any]) -> list[str]:
    replay = training.get("replay")
    if not replay:
        return []
    shared = replay.get("shared")
    place = f" of `{shared['model']}`, a folder beside this one," if shared else ""
    return [
        f"- `replay.safetensors`{place} holds "
        f"{replay.get('rehearsal', 0) + replay.get('sentinels', 0)} small crops of the training images with their "
        f"labels, for fine-tuning; their licence is that of the data: {replay.get('licence') or 'not stated'}."
    ]


def _folds_of(description: ModelDescription) -> list[str]:
    """Return the figures over the folds of an ensemble; nothing for others."""
    folds = description.figures.get("folds")
    if not folds:
        return []
    lines = [
        "",
        f"Every case was measured with the one network of {len(folds)} that had not seen it. The model is the mean of "
        "all, which could be measured on new subjects alone. Mean and standard deviation of Dice over the "
        f"{len(folds)} parts:",
        "",
        "| label | Dice | by part |",
        "|---|---|---|",
    ]
    for label in description.labels:
        values = [fold["dice"][label.name] for fold in folds if label.name in fold["dice"]]
        if values:
            cell = f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"
            lines.append(f"| {label.name} | {cell} | {', '.join(f'{value:.3f}' for value in values)} |")
    return lines


def _configurations_of(description: ModelDescription) -> list[str]:
    """Return what was compared to find the configuration; nothing where there was one."""
    choice = description.figures.get("configurations")
    if not choice:
        return []
    lines = [
        "",
        "## Configurations",
        f"Trained within equal shares of the budget and compared on these {choice['subjects']} subjects, without "
        "post-processing; among those as good as the best within one standard error of the paired difference the "
        "cheapest was kept.",
        "",
        "| configuration | mean Dice | behind the best | operations for a mm³ | kept |",
        "|---|---|---|---|---|",
    ]
    for row in choice["rows"]:
        error = "" if row["error"] is None else f" ± {row['error']:.4f}"
        cells = (f"{row['mean_dice']:.4f}", f"{row['behind']:.4f}{error}", f"{row['operations_per_mm3']:,}")
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {'yes' if row['is_chosen'] else 'no'} |")
    lines += ["", "These cases also chose the configuration, which flatters the figures above."]
    if choice["cross_fitted"] is not None:
        lines[-1] += (
            " Where one half of the subjects chooses and the other measures, and the reverse, mean Dice is "
            f"{choice['cross_fitted']:.4f}."
        )
    return lines


def _postprocess_of(description: ModelDescription) -> list[str]:
    """Return which steps were tried and what they gained; nothing where none was to be chosen."""
    choice = description.figures.get("postprocess")
    if not choice:
        return []
    lines = ["", "## Post-processing"]
    if "reason" in choice:
        return [*lines, f"None was tried: {choice['reason']}."]
    steps = ", ".join(f"`{step}`" for step in choice["steps"]) or "None"
    lines += [
        f"{steps}, chosen on these {choice['cases']} cases of {choice['subjects']} subjects: a step is kept where it "
        "lowers the mean Dice of no label and raises one's, over all subjects and in each of two halves of them. The "
        "figures above are those after the steps.",
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
    """Return what a fine-tuned model says of its parent and of the gate; nothing for others."""
    gate = description.figures.get("gate")
    if not gate:
        return []
    lines = [
        "",
        "## Descent",
        f"Continued from `{description.parent}`. The data and licence above are the parent's, the numbers of cases are "
        "those of the local cases.",
        "",
        f"Gate: **{gate['verdict']}**.",
        *(f"- {reason}." for reason in gate["reasons"]),
        "",
        "| mean Dice on | cases | parent | new | worst change |",
        "|---|---|---|---|---|",
    ]
    for name, title in (("sentinel", "crops of the parent's training images"), ("local", "local cases held back")):
        if entry := gate[name]:
            cells = (f"{entry['old']:.3f}", f"{entry['new']:.3f}", f"{entry['worst_change']:+.3f}")
            lines.append(f"| {title} | {entry['cases']} | {' | '.join(cells)} |")
    return lines
