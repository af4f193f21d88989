"""How many cores this process may use: on clusters and in containers often fewer than the machine has."""

from __future__ import annotations

import os

from mmmono.core.control_groups import core_limits


def usable_cores() -> int:
    """Number of cores that this process may use: those that it is bound to, or a container's share of them, rounded up."""
    return min([_bound(), *core_limits()])


def limit_threads() -> None:
    """Let libraries start no more threads than a container's share of the cores; call it before NumPy is imported.

    They see to which cores a process is bound, but not a quota of their time (`docker run --cpus`, Kubernetes' limits).
    With a thread for each of the machine's cores, each waits for those that have used up the quota. A number that the user
    has set stays.
    """
    if (cores := usable_cores()) < _bound():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def _bound() -> int:
    """Cores that the process is bound to; those of the machine where the system does not tell, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
