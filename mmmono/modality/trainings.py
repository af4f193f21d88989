"""What a number is over several trainings that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mmmono.core.statistics import Interval, holm, t_mean

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OverTrainings:
    """A number over trainings.

    Attributes:
        mean: its mean with a 95 % t interval over trainings; of ratios the geometric mean.
        p: p-value of the mean being the null; NaN if there is none, or fewer than two trainings.
        trainings: number of trainings that have the number.
        same_side: number of them on the mean's side of the null; all of them if there is none.
    """

    mean: Interval
    p: float
    trainings: int
    same_side: int


def over_trainings(values: Float[Array, " trainings"], null: float | None = 0.0, ratio: bool = False) -> OverTrainings:
    """Estimate the mean over trainings of a number that each training has once, and test it.

    Trainings are taken as independent draws, and their values, or the logarithms of ratios, as normally distributed
    (Student 1908): `mmmono.core.statistics.t_mean`. All else that the trainings share, such as pairs and model, is taken as
    it is. A ratio of 0 has no logarithm: the geometric mean is then 0, without interval and p-value.

    Args:
        values: one for each training.
        null: what the number is where there is nothing; positive for ratios. None: it is not tested.
        ratio: whether logarithms are averaged.

    Raises:
        ValueError: there is no value, a ratio is negative, or the null of a ratio is not positive.
    """
    values = np.asarray(values, np.float64)
    if ratio and ((values < 0).any() or (null is not None and null <= 0)):
        raise ValueError("ratios must not be negative, and their null must be positive")
    if ratio and not values.all():
        mean, p = Interval(0.0), math.nan
    else:
        shift = 0.0 if null is None else math.log(null) if ratio else null
        estimate = t_mean((np.log(values) if ratio else values) - shift)
        bounds = estimate.interval()
        middle, low, high = (
            math.exp(end + shift) if ratio else end + shift for end in (bounds.value, bounds.low, bounds.high)
        )
        mean = Interval(middle, low, high, bounds.level, "t over trainings")
        p = math.nan if null is None else estimate.p_value
    if null is None:
        return OverTrainings(mean, p, len(values), len(values))
    same = np.sign(values - null) == np.sign(mean.value - null)
    return OverTrainings(mean, p, len(values), int(same.sum()))


def holm_by_family(p_values: Sequence[float], families: Sequence[Hashable]) -> list[float]:
    """Adjust p-values within families by `mmmono.core.statistics.holm`.

    Args:
        p_values: NaN where nothing was tested, which counts as no test.
        families: the family of each.
    """
    adjusted = [math.nan] * len(p_values)
    for family in dict.fromkeys(families):
        members = [place for place, of in enumerate(families) if of == family]
        for place, value in zip(members, holm([p_values[place] for place in members]), strict=True):
            adjusted[place] = value
    return adjusted
