"""How well features can be steered: does what is measured of a feature move, and does what is measured of others stay?

What retrieval finds, what a generator draws and what a vision-language model says are scored alike: each gives a profile,
one number for each feature, before and after one feature is steered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.core.finite import unit_rows

LEAST = 5  # other features that a cosine of their profiles is of


@dataclass(frozen=True)
class Steered:
    """What steering each of some features at one strength does.

    Attributes:
        strength: the strength, see `mmmono.interpretability.steer.Steer.of`.
        moves: what is measured of the steered feature minus what was before, over its reference: 1 if nothing was there
            before and the feature is then as strong as where it is strongest.
        controls: the same of this feature while others are steered, on average over these.
        stays: cosine of the other features' profiles before and after, each minus the mean profile before: 1 if they stay,
            about 0 if what comes after has nothing to do with what was. NaN with fewer than LEAST other features: the cosine
            of one number is 1 or −1, whatever happens.
    """

    strength: float
    moves: Float64[Tensor, "queries features"]
    controls: Float64[Tensor, "queries features"]
    stays: Float64[Tensor, "queries features"]

    def scores(self) -> Float64[Tensor, " features"]:
        """Steerability of each feature: mean movement times mean staying, 0 if either is negative; NaN as `stays`."""
        return self.moves.mean(0).clamp_min(0) * self.stays.mean(0).clamp_min(0)


class Steerability:
    """Collects profiles while one feature after another is steered, at one strength.

    Args:
        before: profiles before anything is steered.
        mean: mean profile before anything is steered, from which staying is measured. It is that of what the profiles are
            of: what two generated images share because they are generated must not count as staying.
        columns: entry of the profile that each feature is to move.
        reference: what it is to move by, not 0.
    """

    def __init__(
        self,
        before: Float64[Tensor, "queries measured"],
        mean: Float64[Tensor, " measured"],
        columns: Int64[Tensor, " features"],
        reference: Float64[Tensor, " features"],
    ) -> None:
        self._before, self._mean, self._columns, self._reference = before, mean, columns, reference
        self._moves, self._controls, self._stays = (torch.zeros(len(before), len(columns)).double() for _ in range(3))
        self._counts = torch.zeros(len(columns))

    def add(self, place: int, after: Float64[Tensor, "queries measured"]) -> None:
        """Add the profiles after the feature at this place among `columns` was steered."""
        column = int(self._columns[place])
        self._moves[:, place] = (after[:, column] - self._before[:, column]) / self._reference[place]
        if self._before.shape[1] <= LEAST:
            self._stays[:, place] = torch.nan
            return
        sides = [(side - self._mean).index_fill(1, self._columns[[place]], 0.0) for side in (self._before, after)]
        self._stays[:, place] = (unit_rows(sides[0]) * unit_rows(sides[1])).sum(1)

    def add_control(self, places: Int64[Tensor, " places"], after: Float64[Tensor, "queries measured"]) -> None:
        """Add the profiles after something else was steered, as a control of the features at these places."""
        columns = self._columns[places]
        self._controls[:, places] += (after[:, columns] - self._before[:, columns]) / self._reference[places]
        self._counts[places] += 1

    def result(self, strength: float) -> Steered:
        """What was collected; a feature without a control has NaN for it."""
        return Steered(strength, self._moves, self._controls / self._counts, self._stays)


def reference_activations(codes: Float64[Tensor, "images features"], k: int) -> Float64[Tensor, " features"]:
    """Mean of each feature's k largest activations, on the side of 0 with the larger energy Σ z²; negative on that side."""
    negative = codes.clamp_max(0).square().sum(0) > codes.clamp_min(0).square().sum(0)
    signed = torch.where(negative, -codes, codes)
    return torch.where(negative, -1.0, 1.0) * signed.topk(k, dim=0).values.clamp_min(0).mean(0)
