"""How many cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use: those that it is bound to, or a container's share of them, rounded up."""
    from joblib import cpu_count  # not at the top, because it is slow to import

    return int(cpu_count())


def limit_threads() -> None:
    """Let libraries start no more threads than a container's share of the cores; call it before PyTorch is imported.

    OpenMP sees to which cores a process is bound, but not a quota of their time (`docker run --cpus`, Kubernetes' limits).
    With a thread for each of the machine's cores, each waits for those that have used up the quota. A number that the user
    has set stays.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (cores := usable_cores()) < bound:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
