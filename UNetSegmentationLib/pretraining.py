"""Pretraining without labels: a network learns to fill in hidden blocks of images (masked autoencoding).

He et al. 2021 (arXiv:2111.06377); for convolutional networks that segment Wald et al. 2024 (arXiv:2410.23132). The
network is the one that will segment, with as many outputs as the image has channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .augmentation import AugmentationConfig
from .dataset import PreparedCase
from .distributed import ALONE, Processes
from .errors import InputError
from .networks import SegmentationNetwork
from .patches import Patches, PatchSource, generator_of
from .planning import Plan
from .training import Task, train
from .training_options import TrainingOptions
from .training_state import PRETRAINING

STEPS = 500
MASKED_SHARE = 0.6
BLOCK_SIZE = 8
# So that masks do not follow the draws of the patches.
_MASKS = 1


def pretrain(
    network: SegmentationNetwork,
    images: Sequence[PreparedCase],
    plan: Plan,
    *,
    options: TrainingOptions,
    augmentation: AugmentationConfig,
    folder: Path,
    device: torch.device,
    processes: Processes = ALONE,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Give a network the weights of one like it that has learnt to fill in hidden blocks; its heads stay as they are.

    Args:
        network: On the CPU; changed in place.
        images: Prepared; labels are not looked at.
        plan: Patch and batch size.
        options: How long and how.
        augmentation: Those of the training to come; what blurs or adds noise is left out, as nobody could restore it.
        folder: Where the checkpoint lies; one of a pretraining is resumed.
        device: Where to compute.
        processes: Those that train together.
        is_cancelled: Asked at every step.

    Yields:
        {"event": "pretraining", "step": 0, "pretraining_step": n, "loss": ..., "elapsed_s": ..., "share_left": ...}

    Raises:
        CancelledError: `is_cancelled` said so; the checkpoint allows to go on.
        InputError: The network cannot be pretrained, or training.train says so.
    """
    reconstructor = Reconstructor(build_reconstructing(network, seed=options.seed))
    sharp = replace(
        augmentation, blur_probability=0.0, low_resolution_probability=0.0, noise_probability=0.0, outside_label=0
    )

    def mask(part: range) -> Patches:
        return MaskedPatches(PatchSource(images, plan, options, sharp, part=part), part=part, seed=options.seed)

    for event in train(
        reconstructor,
        images,
        [],
        plan,
        options=options,
        augmentation=sharp,
        folder=folder,
        device=device,
        task=Task(phase=PRETRAINING, loss=ReconstructionLoss(), patches=mask),
        processes=processes,
        is_cancelled=is_cancelled,
    ):
        if event["event"] == "step":
            yield {**event, "event": "pretraining", "step": 0, "pretraining_step": event["step"]}
    carry_over(network, reconstructor.network.state_dict())


def build_reconstructing(network: SegmentationNetwork, *, seed: int) -> SegmentationNetwork:
    """Return a network like another, freshly drawn, with outputs for the voxels of each channel.

    Raises:
        InputError: It takes voxels as they are stored, so that no loss would suit all channels.
    """
    if network.raw_channels:
        raise InputError(
            f"{type(network).__name__} takes channels as they are stored, but pretraining fills in normalised voxels: "
            "choose another network, or leave out --init pretrained"
        )
    config = replace(network.config, num_classes=max(2, network.config.in_channels))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(network)(config)


def heads_of(network: SegmentationNetwork) -> set[str]:
    """Return the names of the weights that depend on the number of classes."""
    shapes = []
    for more in (0, 1):
        with torch.device("meta"):
            like = type(network)(replace(network.config, num_classes=network.config.num_classes + more))
        shapes.append({name: value.shape for name, value in like.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shapes[1].get(name) != shape}


def carry_over(network: SegmentationNetwork, weights: dict[str, Tensor]) -> None:
    """Give a network all weights but those of its heads.

    Raises:
        InputError: A weight is missing or of another shape.
    """
    heads, own = heads_of(network), network.state_dict()
    for name, value in own.items():
        if name not in heads and (name not in weights or weights[name].shape != value.shape):
            raise InputError(
                f"the weights to begin with do not fit this network (at {name}): train with the plan and the network "
                "options that they were trained with, or without --init"
            )
    network.load_state_dict({name: value if name in heads else weights[name] for name, value in own.items()})


class Reconstructor(SegmentationNetwork):
    """A segmentation network of which only the outputs count, and no loss of its own.

    Args:
        network: Its finest outputs are voxels.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__(network.config)
        self.network = network

    @property
    def alignment(self) -> tuple[int, ...]:
        """What the network inside needs."""
        return self.network.alignment

    @property
    def accepts_missing_channels(self) -> bool:
        """What the network inside accepts."""
        return self.network.accepts_missing_channels

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) to outputs (B, K, ...), K at least C."""
        outputs: Tensor | list[Tensor] = self.network(image)
        return outputs if isinstance(outputs, Tensor) else outputs[0]

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) to the outputs of the network inside."""
        return self.network.forward_aligned(image)


class ReconstructionLoss(nn.Module):
    """Mean squared error over hidden voxels."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar; 0 where nothing was hidden.

        Args:
            outputs: (B, K, ...), of which the first C count.
            target: True voxels (B, C, ...), NaN where the network saw them.
        """
        is_hidden = ~target.isnan()
        predicted = outputs[:, : target.shape[1]]
        predicted = predicted if predicted.dtype == torch.float64 else predicted.float()
        errors = torch.where(is_hidden, predicted - target.nan_to_num(), 0.0)
        return errors.square().sum() / is_hidden.sum().clamp(min=1)


class MaskedPatches:
    """Batches of which blocks are hidden.

    Args:
        source: Where the images come from.
        part: Which patches of a batch it draws.
        seed: Of the masks.
        share: Share of the blocks that is hidden.
        block_size: Voxels of a block along each axis; half the patch where that is less.
    """

    def __init__(
        self,
        source: PatchSource,
        *,
        part: range,
        seed: int,
        share: float = MASKED_SHARE,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        self._source = source
        self._part = part
        self._seed = seed
        self._share = share
        self._block_size = block_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, ...) with hidden blocks, and what was hidden (B, C, ...), NaN elsewhere."""
        image, _ = self._source.batch(step)
        masks = [
            draw_mask(
                image.shape[2:],
                generator_of(self._seed, step, index, _MASKS),
                share=self._share,
                block_size=self._block_size,
            )
            for index in self._part
        ]
        return hide(image, torch.stack(masks))

    def close(self) -> None:
        """End the source."""
        self._source.close()


def draw_mask(
    size: Sequence[int], generator: torch.Generator, *, share: float = MASKED_SHARE, block_size: int = BLOCK_SIZE
) -> Tensor:
    """Return bool (*size), true in a share of the blocks, of which at least one is hidden and one is seen."""
    blocks = [max(1, min(block_size, extent // 2)) for extent in size]
    grid = [-(-extent // block) for extent, block in zip(size, blocks, strict=True)]
    count = int(torch.tensor(grid).prod())
    hidden = min(max(1, round(share * count)), count - 1)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator)[:hidden]] = True
    mask = mask.view(grid)
    for axis, (extent, block) in enumerate(zip(size, blocks, strict=True)):
        mask = mask.repeat_interleave(block, dim=axis).narrow(axis, 0, extent)
    return mask


def hide(image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image with hidden voxels at the mean of the visible ones, and the hidden voxels, NaN elsewhere.

    Args:
        image: (B, C, ...); a missing channel is NaN and stays so.
        masks: Bool (B, ...), true where voxels are hidden.
    """
    is_hidden = masks.unsqueeze(1) & ~image.isnan()
    axes = tuple(range(2, image.ndim))
    visible = torch.where(masks.unsqueeze(1), torch.nan, image)
    mean = visible.nanmean(dim=axes, keepdim=True)
    return torch.where(is_hidden, mean, image), torch.where(is_hidden, image, torch.nan)
