"""Files of tensors (safetensors) that are written completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .files import atomic_path

_SYSTEM_ERROR = re.compile(r"(?P<reason>[^:]+) \(os error (?P<number>\d+)\)")


@contextmanager
def atomic_tensor_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to save tensors to, like files.atomic_path.

    Raises:
        InputError: The folder cannot be created or written to, or the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except SafetensorError as error:
            # safetensors wraps errors of the system in its own, with the number in the text.
            refusal = _SYSTEM_ERROR.search(str(error))
            if refusal is None:
                raise
            raise OSError(int(refusal["number"]), refusal["reason"].strip()) from error
