"""Files of tensors (safetensors) that are either written whole or not at all."""

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
    """Give a temporary path to save tensors to, as files.atomic_path does.

    Raises:
        InputError: The folder cannot be made or written to, or the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except SafetensorError as error:
            # What the system refused comes as safetensors' own error, its number in the text.
            refusal = _SYSTEM_ERROR.search(str(error))
            if refusal is None:
                raise
            raise OSError(int(refusal["number"]), refusal["reason"].strip()) from error
