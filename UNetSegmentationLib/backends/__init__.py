"""Backends that compute a network's logits, one file each; each is validated against eager float32 before use."""

from .contract import BACKENDS, Backend, Forward

__all__ = ["BACKENDS", "Backend", "Forward"]
