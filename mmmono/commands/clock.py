"""Where the time of a make target went: one line from the build times that lie beside what it made."""

from __future__ import annotations

from collections import defaultdict

from mmmono.core.artifacts import Artifacts
from mmmono.core.timing import read_timing

SHOWN = 1.0  # seconds from which a stage is named


def time_line(artifacts: Artifacts, since: float, seconds: float) -> str:
    """Return how many of a target's seconds each kind of artifact took, the longest first; empty if it made nothing.

    Args:
        artifacts: the artifacts root.
        since: when the target began, in seconds since the epoch.
        seconds: how long it took.
    """
    stages: defaultdict[str, float] = defaultdict(float)
    for artifact in artifacts.find("*"):
        if artifact.made_at >= since and (timing := read_timing(artifact.path)) is not None:
            stages[f"{artifact.kind}/{artifact.path.name.partition('-')[0]}"] += min(timing.latest, seconds)
    if not stages:
        return ""
    longest = sorted(stages.items(), key=lambda entry: -entry[1])
    named = [f"{stage} {spent:.0f} s" for stage, spent in longest if spent >= SHOWN]
    rest = max(0.0, seconds - sum(spent for spent in stages.values() if spent >= SHOWN))
    return f"time: {seconds:.0f} s, of which {', '.join([*named, f'imports, figures and the rest {rest:.0f} s'])}"
