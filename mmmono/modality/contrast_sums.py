"""Sums of contrasts over groups, from which a score's mean and its cluster-robust standard error follow."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.modality.groups import OpenGroups


@dataclass(frozen=True)
class ContrastSums:
    """Sums over pairs i and over groups g of a feature; c_i is a pair's contrast, a a center near their mean.

    With S_g = Σ (c_i − a) over the n_g pairs of group g, each is a tensor of float64 [features]:

    Attributes:
        pairs: Σ n_g.
        excess: Σ S_g.
        pair_squares: Σ_i (c_i − a)².
        squares: Σ S_g².
        cross: Σ S_g n_g.
        size_squares: Σ n_g².
        groups: number of groups with n_g > 0.
    """

    pairs: Float64[Tensor, " features"]
    excess: Float64[Tensor, " features"]
    pair_squares: Float64[Tensor, " features"]
    squares: Float64[Tensor, " features"]
    cross: Float64[Tensor, " features"]
    size_squares: Float64[Tensor, " features"]
    groups: Float64[Tensor, " features"]

    @classmethod
    def of_single_pairs(cls, pairs: Tensor, excess: Tensor, squares: Tensor) -> ContrastSums:
        """Sums where each pair is a group of its own."""
        return cls(pairs, excess, squares, squares, excess, pairs, pairs)

    def __add__(self, other: ContrastSums) -> ContrastSums:
        return ContrastSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def scatter(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean m of c − a; Σ (S_g − n_g m)² / Σ n_g over groups; Σ (c_i − a − m)² / Σ n_g over pairs."""
        mean = self.excess / self.pairs
        by_group = self.squares / self.pairs - (
            2 * mean * (self.cross / self.pairs) - mean.square() * (self.size_squares / self.pairs)
        )
        by_pair = self.pair_squares / self.pairs - mean.square()
        return mean, by_group.clamp_min(0), by_pair.clamp_min(0)

    def squares_about(self, center: Tensor | float) -> Tensor:
        """Σ (S_g + n_g a)² for the center a: the squared sums of the contrasts themselves."""
        return (self.squares + 2 * center * self.cross + center**2 * self.size_squares).clamp_min(0)


class GroupedContrasts:
    """Running `ContrastSums` of groups of several pairs.

    Args:
        features: number of features.
        sizes: number of pairs of each group, see `OpenGroups`.
        device: of the sums.

    Attributes:
        open: groups that have begun and not ended.
        num_pairs: number of pairs so far.
        informative: number of them that activate each feature.
    """

    def __init__(self, features: int, sizes: np.ndarray | None, device: torch.device) -> None:
        self.num_pairs = 0
        self.informative: Int64[Tensor, " features"] = torch.zeros(features, dtype=torch.int64, device=device)
        self._by_pair = torch.zeros(3, features, dtype=torch.float64, device=device)  # Σ n, Σ (c − a), Σ (c − a)²
        self._by_group = torch.zeros(5, features, dtype=torch.float64, device=device)  # see _by_group_sums
        self.open = OpenGroups(sizes)
        self._ended = 0

    def add(self, codes: np.ndarray, deviations: Tensor, counted: Tensor, informative: Tensor) -> None:
        """Add pairs.

        Args:
            codes: group of each pair.
            deviations: c − a of each pair and feature, float64; 0 where the pair does not count.
            counted: whether the pair counts for the feature.
            informative: whether the pair activates the feature.
        """
        count = counted.double()
        self.num_pairs += len(deviations)
        self.informative += informative.sum(0)
        self._by_pair += torch.stack([count.sum(0), deviations.sum(0), deviations.square().sum(0)])
        self._end(self.open.add(codes, torch.cat([deviations, count, informative.double()], 1)))

    def add_sums(self, sums: Float64[Tensor, "sums features"], pairs: int, groups: int) -> Int64[Tensor, "3 features"]:
        """Add groups that have ended, none of whose pairs was added.

        Args:
            sums: see `kernels.add_group_ratios`.
            pairs, groups: number of pairs and of groups.

        Returns:
            Number of pairs that activate the feature, that do so on the image side, and on the text side.
        """
        counts = sums[3:6].long()
        self.num_pairs += pairs
        self.informative += counts[0]
        self._by_pair += sums[:3]
        self._by_group += sums[6:]
        self._ended += groups
        return counts

    def merge(self, other: GroupedContrasts, moved: Tensor) -> None:
        """Add other sums, whose center is larger than this object's by `moved`. They stay as they are."""
        device = self._by_pair.device
        moved = moved.to(device)
        count, excess, pair_squares = other._by_pair.to(device)
        squares, cross, size_squares, *groups = other._by_group.to(device)
        self.num_pairs += other.num_pairs
        self.informative += other.informative.to(device)
        self._ended += other._ended
        self._by_pair += torch.stack(
            [count, excess + moved * count, pair_squares + 2 * moved * excess + moved.square() * count]
        )
        self._by_group += torch.stack(
            [
                squares + 2 * moved * cross + moved.square() * size_squares,
                cross + moved * size_squares,
                size_squares,
                *groups,
            ]
        )

        def shift(row: Tensor) -> Tensor:
            excess, count, informative = row.to(device).chunk(3)
            return torch.cat([excess + moved * count, count, informative])

        theirs = other.open.shifted(shift)
        if (ended := self.open.merge(theirs)) is not None:
            self._end(ended)

    @property
    def num_groups(self) -> int:
        """Number of groups so far."""
        return self._ended + len(self.open)

    def sums(self) -> tuple[ContrastSums, Int64[Tensor, " features"]]:
        """All sums, and the number of groups that activate each feature; groups that have not ended count as they are."""
        by_group = self._by_group
        if (rows := self.open.open()) is not None:
            by_group = by_group + _by_group_sums(rows)
        return ContrastSums(*self._by_pair, *by_group[:4]), by_group[4].long()

    def _end(self, rows: Tensor) -> None:
        self._ended += len(rows)
        self._by_group += _by_group_sums(rows)


def _by_group_sums(rows: Float64[Tensor, "groups n"]) -> Float64[Tensor, "5 features"]:
    """Σ S_g², Σ S_g n_g, Σ n_g², number of groups that count, and of groups with an informative pair."""
    excess, count, informative = rows.chunk(3, 1)
    products = (excess.square(), excess * count, count.square(), (count > 0).double(), (informative > 0).double())
    return torch.stack([values.sum(0) for values in products])
