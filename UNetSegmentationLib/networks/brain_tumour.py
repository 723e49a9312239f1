"""Brain tumour in four MRI sequences: necrotic core, oedema and enhancing tumour (BraTS, arXiv:1811.02629)."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import InputError
from .contract import NETWORKS
from .sequence_fusion import SequenceFusion, SequenceFusionConfig

SEQUENCES = ("T1", "T1ce", "T2", "FLAIR")


@dataclass(frozen=True, kw_only=True)
class BrainTumourConfig(SequenceFusionConfig):
    """Shape of the brain-tumour network: four sequences, four classes with the background."""

    in_channels: int = len(SEQUENCES)
    num_classes: int = 4
    sequences: tuple[str, ...] = SEQUENCES

    def _check(self, depth: int, axes: int) -> None:
        if self.in_channels != len(SEQUENCES):
            raise InputError(
                f"BrainTumourConfig: in_channels is {self.in_channels}: must be {len(SEQUENCES)} "
                f"({', '.join(SEQUENCES)}; a missing one stays empty), or choose the network 'sequence_fusion'"
            )
        super()._check(depth, axes)


@NETWORKS.register("brain_tumour", title="Brain tumour (T1, T1ce, T2, FLAIR)")
class BrainTumourNetwork(SequenceFusion):
    """Four encoders, for T1, T1ce, T2 and FLAIR, any of which may be missing."""

    Config = BrainTumourConfig
