"""Refinement of probability maps by the image before the labelmap is decided, one file per step."""

from .contract import PROBABILITY_STEPS, ProbabilityStep, apply_probability_steps, parse_probability_step

__all__ = ["PROBABILITY_STEPS", "ProbabilityStep", "apply_probability_steps", "parse_probability_step"]
