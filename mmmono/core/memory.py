"""Keeps freed tensor memory in the process instead of returning it to the kernel after every operation."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks of any size (mallopt). Returns True if glibc accepted the settings.

    By default glibc maps and unmaps each tensor above 32 MB anew, and the kernel zeroes its pages every time: a third
    of the time of a convolutional encoder on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))
