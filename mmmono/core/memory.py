"""Keeps large tensors' memory in the process instead of giving it back to the kernel after every operation."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks of any size; whether it could be told to.

    By default each tensor above 32 MB is mapped and unmapped anew, and the kernel fills its pages with zeros every time:
    a third of the time of a convolutional encoder on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))
