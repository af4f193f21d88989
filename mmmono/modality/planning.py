"""How many groups of pairs does a question need? Answers from a pilot's scores (Eq. 1) and their errors.

Errors shrink with the root of the number of groups, and a feature's share of informative groups stays what it is. So a pilot
with G groups and the error s needs G · (s / s')² groups for the error s'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Bool, Float64
from scipy.stats import norm
from torch import Tensor

from mmmono.core.ranges import check_number, check_whole
from mmmono.modality.intervals import effective_trials
from mmmono.modality.scores import DominanceScores


def planning_error(dominance: DominanceScores) -> Float64[Tensor, " features"]:
    """Standard error of R(d) that does not vanish where a small pilot saw one modality win every pair.

    √(R̃ (1 − R̃) / t) with t from `effective_trials`, and R̃ = (R t + 2) / (t + 4) (Agresti and Coull 1998).
    """
    trials = effective_trials(dominance)
    share = (dominance.scores * trials + 2) / (trials + 4)
    return (share * (1 - share) / trials).sqrt()


def groups_for_half_width(
    dominance: DominanceScores, half_width: float, level: float = 0.95
) -> Float64[Tensor, " features"]:
    """Number of groups for which the interval of R(d) is R(d) ± `half_width`, by feature; NaN for dead ones.

    Args:
        dominance: scores of the pilot.
        half_width: half width to reach.
        level: confidence level.

    Raises:
        ValueError: `half_width` is not positive.
    """
    check_number("half_width", half_width, above=0)  # no number of groups gives an exact score
    check_number("level", level, above=0, below=1)
    return dominance.num_groups * (_z((1 + level) / 2) * planning_error(dominance) / half_width).square()


def groups_for_power(
    dominance: DominanceScores, difference: float, power: float = 0.8, alpha: float = 0.05
) -> Float64[Tensor, " features"]:
    """Number of groups with which a feature with |R(d) − ½| = `difference` is significant with probability `power`.

    The test is two-sided at the level `alpha`, without a correction for the number of features: with q-values, the level
    of a single test is `fdr` times the share of significant features.

    Args:
        dominance: scores of the pilot.
        difference: smallest distance from ½ that matters.
        power: probability of finding it.
        alpha: level of the test.

    Raises:
        ValueError: `difference` is not positive.
    """
    check_number("difference", difference, above=0)  # nothing tells equal scores apart
    _check_test(power, alpha)
    reach = _z(1 - alpha / 2) + _z(power)
    return dominance.num_groups * (reach * planning_error(dominance) / difference).square()


def groups_for_border(
    num_groups: int, distance: Tensor, error: Tensor, power: float = 0.8, alpha: float = 0.05
) -> Float64[Tensor, " features"]:
    """Number of groups with which a feature at its distance from its class's border is confirmed with probability `power`.

    Args:
        num_groups: groups of the pilot.
        distance: R(d) minus the border, or the reverse for TextD; NaN and values ≤ 0 give NaN.
        error: standard error of the distance in the pilot (`ClassCertainty.border_error`).
        power: probability of finding it.
        alpha: level of the one-sided test; of several features see `groups_for_power`.
    """
    _check_test(power, alpha)
    groups = num_groups * ((_z(1 - alpha) + _z(power)) * error / distance).square()
    return torch.where(distance > 0, groups, torch.nan)


@dataclass(frozen=True)
class Aims:
    """What a plan is for.

    Attributes:
        half_width: half width of the interval of R(d).
        difference: distance of R(d) from ½ that should be found.
        power: probability with which it should be found.
        fdr: false discovery rate among the live features at which it should be found.
    """

    half_width: float = 0.01
    difference: float = 0.05
    power: float = 0.8
    fdr: float = 0.05

    def __post_init__(self) -> None:
        check_number("half_width", self.half_width, above=0)
        check_number("difference", self.difference, above=0)
        check_number("power", self.power, above=0, below=1)
        check_number("fdr", self.fdr, above=0, below=1)


def plan_rows(
    dominance: DominanceScores,
    live: Bool[Tensor, " features"],
    distance: Float64[Tensor, " features"],
    border_error: Float64[Tensor, " features"],
    aims: Aims,
    least: int = 1,
) -> Iterator[dict[str, float | int | str]]:
    """Yield one row for each aim: the groups it needs for half and for 90 % of the live features that it is about.

    A test at a false discovery rate has the level of a single one times the share of live features that it finds
    (Benjamini and Hochberg 1995). Half of those that the aim is about are taken to be found.

    Args:
        dominance: scores of the pilot.
        live: mask of the live features.
        distance, border_error: see `groups_for_border`.
        aims: what to plan for.
        least: groups that must activate a feature for it to be live. Fewer than have so many of them are never enough.
    """
    check_whole("least", least, 0)
    fewest = least * dominance.num_groups / dominance.informative_groups.double()
    share = dominance.informative_pairs.double() / dominance.num_groups
    beyond = live & (distance > 0)

    def level(about: Tensor) -> float:
        return aims.fdr * max(1.0, float(about.sum()) / 2) / max(1, int(live.sum()))

    needed = {
        ("half_width", aims.half_width): groups_for_half_width(dominance, aims.half_width),
        ("difference", aims.difference): groups_for_power(dominance, aims.difference, aims.power, level(live)),
        ("border", nan): groups_for_border(dominance.num_groups, distance, border_error, aims.power, level(beyond)),
    }
    for (aim, target), errors_need in needed.items():
        groups = errors_need.maximum(fewest)  # NaN where errors say nothing
        asked = live & groups.isfinite()
        yield {
            "aim": aim, "target": target, "asked": int(asked.sum()), "groups": dominance.num_groups,
            "groups_median": _quantile(groups[asked], 0.5), "groups_90": _quantile(groups[asked], 0.9),
            "informative_median": _quantile((groups * share)[asked], 0.5),
        }  # fmt: skip


def _quantile(values: Tensor, level: float) -> float:
    return float(values.quantile(level).ceil()) if len(values) else float("nan")


def _check_test(power: float, alpha: float) -> None:
    check_number("power", power, above=0, below=1)
    check_number("alpha", alpha, above=0, below=1)


def _z(level: float) -> float:
    return float(norm.ppf(level))
