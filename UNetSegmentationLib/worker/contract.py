"""What a worker operation is: the fields of a request in, the fields of its result out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.registry import Registry

# operation(raw request, warm models, *, task) -> fields of the result. The process lists the names before torch is
# loaded and imports an operation when it is requested.
Operation = Callable[..., dict[str, Any]]

OPERATIONS: Registry[Operation] = Registry("operation", "UNetSegmentationLib.worker")
