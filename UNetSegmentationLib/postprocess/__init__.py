"""Post-processing of labelmaps, one file a step."""

from .contract import STEPS, apply_steps, parse_step

__all__ = ["STEPS", "apply_steps", "parse_step"]
