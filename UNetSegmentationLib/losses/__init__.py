"""Segmentation losses, one file each."""

from .contract import LOSSES, LossConfig, SegmentationLoss, build_loss
from .parts.deep_supervision import DeepSupervisionLoss

__all__ = ["LOSSES", "DeepSupervisionLoss", "LossConfig", "SegmentationLoss", "build_loss"]
