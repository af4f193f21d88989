"""How many cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use; those of the machine where the system does not tell, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
