"""Accuracy of classifying samples by randomly drawn references, with its standard error over samples and references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmmono.core.statistics import Estimate

Array = np.ndarray[Any, Any]
METHOD = "t over samples and references"


class DrawnAccuracy:
    """Accuracies of the samples of one concept over random draws of references, under several conditions.

    The samples stand for all samples of their concept, both where they are classified and where they are references. So
    the error does not vanish with many draws: these use the same samples again and again.

    Args:
        members: masks of the samples of the concept that is classified, and of the other one.
        conditions: number of conditions, such as removals of features.
    """

    def __init__(self, members: tuple[Bool[Array, " samples"], Bool[Array, " samples"]], conditions: int) -> None:
        self._members = members
        self._by_sample = np.zeros((conditions, len(members[0])))  # sum over draws of the accuracy of each sample
        self._tested = np.zeros(len(members[0]))  # in how many draws it was classified
        self._by_draw: list[Float[Array, " conditions"]] = []
        self._references: list[Int[Array, " references"]] = []

    @property
    def samples(self) -> int:
        """Number of samples of the classified concept."""
        return int(self._members[0].sum())

    def add(
        self,
        right: Float[Array, "conditions samples"],
        own: Int[Array, " references"],
        other: Int[Array, " references"],
    ) -> None:
        """Add a draw.

        Args:
            right: 1 where a sample is classified correctly, 0.5 at a tie, else 0.
            own: samples that are references of the classified concept, and not classified themselves.
            other: references of the other concept, as many.
        """
        tested = self._members[0].copy()
        tested[own] = False
        self._by_sample[:, tested] += right[:, tested]
        self._tested += tested
        self._by_draw.append(right[:, tested].mean(1))
        self._references.append(np.concatenate([own, other]))

    def mean(self, weights: Float[Array, " conditions"]) -> Estimate:
        """Mean over draws of a sum of the conditions' accuracies, such as that of the first minus that of the second.

        A sample's influence on the mean is what it contributes where it is classified plus what the draws contribute in
        which it is a reference; squared and summed over samples, this is the variance (Fafchamps and Gubert 2007, Eq. 2,
        for observations that share one of several members). A draw has several references, in each of which its own
        deviation is counted: once is enough, the rest is subtracted. Degrees of freedom follow Satterthwaite (1946), from
        the numbers of samples and draws, and from how uneven the squared influences are: if few samples decide, the
        error is uncertain (half of what their spread implies: references of one draw share its deviation). The smaller ones
        are used. A single draw has no error.

        Args:
            weights: factor of each condition.
        """
        draws = np.stack(self._by_draw) @ weights
        mean, count = float(draws.mean()), len(draws)
        if count < 2:
            return Estimate(mean, method=METHOD)
        sizes = [int(side.sum()) for side in self._members]
        references = len(self._references[0])
        in_test = (weights @ self._by_sample - self._tested * mean) / (count * (sizes[0] - references // 2))
        deviation = (draws - mean) / count * math.sqrt(count / (count - 1))
        in_reference = np.zeros_like(in_test)
        for used, change in zip(self._references, deviation, strict=True):
            in_reference[used] += change
        influence = in_test + in_reference
        by_side = [
            size / max(1, size - 1) * np.square(influence[side]).sum()
            for side, size in zip(self._members, sizes, strict=True)
        ]
        by_draw, by_test = float(deviation @ deviation), float(in_test @ in_test)
        variance = max(float(sum(by_side)) - (references - 1) * by_draw, by_draw, by_test)
        rest = variance - by_test
        scatter = by_test**2 / max(1, sizes[0] - 1) + rest**2 / max(1, min(count, *sizes) - 1)
        freedom = variance**2 / scatter if scatter else count - 1
        squares = np.square(influence[self._members[0] | self._members[1]])
        uneven = float(np.square(squares - squares.mean()).sum())
        if uneven:
            freedom = min(freedom, max(1.0, float(squares.sum()) ** 2 / uneven))
        return Estimate(mean, math.sqrt(variance), freedom, METHOD)
