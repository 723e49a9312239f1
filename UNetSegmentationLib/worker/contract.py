"""What an operation of the worker is: the fields of a request in, the fields of its result out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.registry import Registry

# operation(request as it came, warm models, *, task) -> fields of the result. The process lists
# the names before torch is there and imports an operation when it is asked for.
Operation = Callable[..., dict[str, Any]]

OPERATIONS: Registry[Operation] = Registry("operation", "UNetSegmentationLib.worker")
