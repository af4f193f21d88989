"""What to say when a GPU has too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmmono.core.errors import ConfigError

# What CUDA, cuBLAS and cuDNN say where another program holds the memory that they need beside PyTorch's.
ALSO = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@contextmanager
def enough_gpu_memory(remedy: str) -> Iterator[None]:
    """Turn the errors of a GPU without free memory into a ConfigError: PyTorch's, and those of CUDA and its libraries.

    Args:
        remedy: what to do about it, as the end of a sentence.
    """
    try:
        yield
    except RuntimeError as error:
        if not _no_memory(error):
            raise
        raise ConfigError(f"out of GPU memory: {remedy}") from error


def _no_memory(error: RuntimeError) -> bool:
    # By its name, so that commands that use no tensors import no PyTorch.
    return type(error).__name__ == "OutOfMemoryError" or any(said in str(error) for said in ALSO)
