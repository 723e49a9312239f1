"""The card of a model, written from its description."""

from __future__ import annotations

from .model_folder import ModelDescription

_SHOWN = (("dice", "Dice"), ("hd95_mm", "HD95 (mm)"), ("assd_mm", "ASSD (mm)"), ("surface_dice", "surface Dice"))


def card_of(description: ModelDescription) -> str:
    """Return CARD.md: what the model is for, what it was trained on, how good it is, its limits and its licence."""
    training = description.training
    lines = [
        f"# {description.title}",
        "",
        f"Finds {', '.join(label.name for label in description.labels)} in "
        f"{', '.join(channel.name for channel in description.channels)} images ({description.preset.upper()} preset). "
        f"Network `{description.network}`, id `{description.id}`.",
        "",
        "Not a medical device: a person must check every result.",
        "",
        "## Data",
        f"- Source: {training.get('data') or 'not stated'}",
        f"- Licence of the data: {training.get('data_licence') or 'not stated'}",
        f"- Trained on {training.get('cases')} cases of {training.get('subjects')} subjects; "
        f"{len(training.get('held_back_cases', []))} cases of {training.get('held_back_subjects')} other subjects were "
        "held back. No subject is on both sides.",
        f"- {training.get('steps')} steps in {training.get('minutes')} minutes.",
        "",
        f"## Figures on the {description.figures.get('cases', 0)} cases held back (means)",
        "| label | " + " | ".join(title for _, title in _SHOWN) + " |",
        "|---|" + "---|" * len(_SHOWN),
    ]
    for name, figures in description.figures.get("labels", {}).items():
        values = [f"{figures[key]:.3f}" if key in figures else "" for key, _ in _SHOWN]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    spacing = " x ".join(f"{value:.3g}" for value in description.plan.spacing_mm[::-1])
    lines += [
        "",
        "## Limits",
        f"- Made for images like those above{f', at about {spacing} mm' if any(description.plan.spacing_mm) else ''}; "
        "other scanners, ages and diseases were not measured.",
        "",
        "## Licence",
        description.licence or "not stated",
        "",
    ]
    return "\n".join(lines)
