"""Post-processing of labelmaps, one file per step."""

from .contract import STEPS, apply_steps, parse_step

__all__ = ["STEPS", "apply_steps", "parse_step"]
