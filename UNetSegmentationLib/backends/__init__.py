"""Ways to compute a network's logits: one file a backend, each tested against eager float32 before it is used."""

from .contract import BACKENDS, Backend, Forward

__all__ = ["BACKENDS", "Backend", "Forward"]
