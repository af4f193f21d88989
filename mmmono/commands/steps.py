"""Steps of a reproduction: which analyses a make target runs, and with which arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmmono.analyses import ANALYSES
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.command_line import quote

PAPER_PREFIXES = ("section-", "appendix-")


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction is of.

    Attributes:
        given: overrides of the command line, such as `model=clip_rn50`; those that a step does not have are ignored, and
            those of model and dataset where the pairs of an analysis are its own.
        exact: use the paper's own settings (conf/paper).
        coco: folder of COCO, for what the paper did on it; None if there is none.
        planned: make targets that a plan is of; none for `paper`.
    """

    given: Sequence[str] = ()
    exact: bool = False
    coco: str | None = None
    planned: Sequence[str] = ()

    def arguments(self, analysis: Analysis, alone: bool = False) -> list[str]:
        """Return the arguments of an analysis' entrypoint.

        Args:
            analysis: the analysis.
            alone: whether it alone was asked for, so that given features are meant for it even if the paper used
                others.
        """
        setting = analysis.paper_setting if self.exact else None
        own = setting.chooses if setting is not None else ()
        kept = [
            o
            for o in overrides_for(analysis, self.given)
            if _choice(o) not in own or (alone and _choice(o) == "features")
        ]
        if setting is not None:
            coco = [quote(f"dataset.root={self.coco}")] if setting.dataset == "coco" and self.coco else []
            return [f"+paper={setting.option}", *kept, *coco]
        chosen = any(_choice(override) == "features" for override in kept)
        return [*kept, *([f"features={analysis.features}"] if analysis.features and not chosen else [])]

    def lacks_coco(self, analysis: Analysis) -> bool:
        """Whether the paper's own setting of an analysis is on COCO, whose folder is not given."""
        setting = analysis.paper_setting
        return self.exact and setting is not None and setting.dataset == "coco" and self.coco is None


def analyses_of(target: str) -> list[Analysis]:
    """Return the analyses that a make target runs, those that train dictionaries first.

    Targets contain those below them: `section-2` runs `section-2.1`. `paper` runs all that belong to a section.
    """

    def runs(analysis: Analysis) -> bool:
        if target == "paper":
            return any(own.startswith(PAPER_PREFIXES) for own in analysis.targets)
        return any(own == target or own.startswith(f"{target}.") for own in analysis.targets)

    return in_order(filter(runs, ANALYSES))


def in_order(analyses: Iterable[Analysis]) -> list[Analysis]:
    """Return analyses in the order in which they are run: those that train dictionaries first."""
    return sorted(analyses, key=lambda analysis: analysis.kind != "dictionaries")


def all_targets() -> list[str]:
    """Make targets that analyses belong to, in the analyses' order."""
    return list(dict.fromkeys(target for analysis in ANALYSES for target in analysis.targets))


def targets() -> dict[str, str]:
    """Make targets of the paper's sections, then of its appendices, each with a line that says what it makes."""
    lines: dict[str, list[str]] = {}
    for analysis in ANALYSES:
        for target in analysis.targets:
            if target.startswith(PAPER_PREFIXES):
                lines.setdefault(target, []).append(f"{analysis.title} ({analysis.paper})")
    return {target: "; ".join(lines[target]) for target in sorted(lines, key=lambda t: (t.startswith("appendix"), t))}


def overrides_for(analysis: Analysis, given: Sequence[str]) -> list[str]:
    """Return overrides; without those of model and dataset, such as `dataset.limit=900`, if it has its own pairs."""
    return [o for o in given if analysis.of_features or group_of(o) not in ("model", "dataset")]


def group_of(override: str) -> str:
    """Return the group, or the first component of the key, of an override."""
    return re.split(r"[=./@]", override.lstrip("+~"))[0]


def _choice(override: str) -> str:
    """Return the group of which an override chooses an option; its whole key if it sets a value, as `dataset.root=` does."""
    return override.lstrip("+").partition("=")[0]
