"""How much memory this process may use, and how it keeps what tensors have freed."""

from __future__ import annotations

import ctypes
import gc
import os
import platform

from mmmono.core.control_groups import memory_limits

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEW_OBJECTS = 5000  # between two looks for objects that only refer to one another; Python's own number is 700


def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks of any size (mallopt). Returns True if glibc accepted the settings.

    By default glibc maps and unmaps each tensor above 32 MB anew, and the kernel zeroes its pages every time: a third
    of the time of a convolutional encoder on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))


def collect_rarely() -> None:
    """Let Python look less often for objects that only refer to one another.

    Importing PyTorch and Lightning makes a million objects that stay, and looking through them again and again takes a sixth
    of the time until a command begins. Tensors are freed as before, as soon as nothing refers to them.
    """
    _, middle, old = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, middle, old)


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where a container or a cluster's job has a limit."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *memory_limits()])
