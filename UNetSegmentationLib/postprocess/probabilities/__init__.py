"""Refinement of probability maps by the image, before a labelmap is made of them, one file a step."""

from .contract import PROBABILITY_STEPS, ProbabilityStep, apply_probability_steps, parse_probability_step

__all__ = ["PROBABILITY_STEPS", "ProbabilityStep", "apply_probability_steps", "parse_probability_step"]
