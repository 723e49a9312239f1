"""Post-processing steps of both kinds: on probabilities before labels are decided, on the labelmap afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...core.errors import InputError
from .. import STEPS, parse_step
from ..probabilities import PROBABILITY_STEPS, apply_probability_steps, parse_probability_step

# Probabilities below this are treated as zero; their logarithm would only make interpolation overshoot.
_SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class FinishingSteps:
    """Checked steps, as text: `name` or `name:option=value,...`.

    Attributes:
        on_probabilities: Applied first, on the network's grid, in the order given.
        on_labelmap: Applied last, on the volume's grid, in the order given.
    """

    on_probabilities: tuple[str, ...]
    on_labelmap: tuple[str, ...]


def sort_steps(names: Sequence[str], *, output: str = "labels") -> FinishingSteps:
    """Return the steps by kind; errors surface here, before anything is computed.

    Args:
        names: Steps as text.
        output: Output of the model, one of models.description.OUTPUTS.

    Raises:
        InputError: Unknown step or option, a value out of range, or a probability step for overlapping regions.
    """
    early, late = [], []
    for text in names:
        name = text.partition(":")[0].strip()
        if name in PROBABILITY_STEPS:
            parse_probability_step(text)
            early.append(text)
        elif name in STEPS:
            parse_step(text)
            late.append(text)
        else:
            known = ", ".join(sorted([*STEPS, *PROBABILITY_STEPS]))
            raise InputError(f"unknown post-processing step '{name}': choose one of {known}")
    if early and output == "regions":
        raise InputError(f"the model outputs overlapping regions, but {', '.join(early)} needs labels: leave it out")
    return FinishingSteps(tuple(early), tuple(late))


def refine_logits(logits: Tensor, image: Tensor, *, spacing_mm: Sequence[float], names: Sequence[str]) -> Tensor:
    """Return logits (K, D, H, W) after probability steps, if any.

    Args:
        logits: Logits of the network, on its grid.
        image: The network's input (C, D, H, W).
        spacing_mm: Spacing (D, H, W) of that grid.
        names: Probability steps, as text; they need mutually exclusive classes.
    """
    if not names:
        return logits
    probabilities = apply_probability_steps(
        logits.softmax(dim=0), image.to(logits.device), spacing_mm=spacing_mm, names=names
    )
    return probabilities.clamp(min=_SMALLEST_PROBABILITY).log()
