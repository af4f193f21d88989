"""What to say when a GPU has too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmmono.core.errors import ConfigError


@contextmanager
def enough_gpu_memory(remedy: str) -> Iterator[None]:
    """Turn PyTorch's error of a GPU without free memory into a ConfigError.

    Args:
        remedy: what to do about it, as the end of a sentence.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # named, so that commands that use no tensors import no PyTorch
            raise
        raise ConfigError(f"out of GPU memory: {remedy}") from error
