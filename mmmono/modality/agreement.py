"""Agreement of two partitions or two sets of scores of the same, or of matched, features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.stats import spearmanr
from torch import Tensor

from mmmono.core.finite import check_finite, check_tensor, double
from mmmono.core.streams import Stream, unpacked
from mmmono.features.sparse_rows import compact
from mmmono.modality.partition import Partition


def adjusted_rand_index(first: Partition, second: Partition) -> float:
    """Adjusted Rand index of two partitions over the features that are live in both.

    1 for equal partitions, 0 in expectation for random ones, NaN if no feature is live in both.

    Raises:
        ValueError: they are of other numbers of features.
    """
    if len(first) != len(second):
        raise ValueError(f"partitions of {len(first)} and of {len(second)} features: both must be of the same ones")
    a, b = np.array(first.class_of()), np.array(second.class_of())
    live = (a != "dead") & (b != "dead")
    from sklearn.metrics import adjusted_rand_score  # not at the top: it takes a second

    return float(adjusted_rand_score(a[live], b[live])) if live.any() else float("nan")


def rank_correlation(first: Float[Tensor, " features"], second: Float[Tensor, " features"]) -> float:
    """Spearman's ρ over features without NaN in either; NaN if there are fewer than two or a side is constant.

    Raises:
        TypeError: a side is no tensor.
        ValueError: there are not as many scores on both sides.
    """
    for side in (first, second):
        check_tensor(side, "scores")
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"two lists of scores of the same features expected, got {tuple(first.shape)}, {tuple(second.shape)}"
        )
    known = ~(first.isnan() | second.isnan()).detach()
    a, b = double(first)[known].cpu().numpy(), double(second)[known].cpu().numpy()
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def feature_correlations(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> Float64[Tensor, "features_a features_b"]:
    """Pearson correlations between the features of two feature sets on the same samples; 0 for constant features.

    Args:
        blocks: activations of both feature sets, row by row on the same samples.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are no samples.
    """
    stream = CorrelationStream()
    for a, b in unpacked(blocks, "first, second"):
        stream.add(a, b)
    return stream.result()


@dataclass
class _Sums:
    """Sums over the samples of one stratum, for both sets; deviations are from the stratum's first sample.

    They stay accurate if means are large relative to deviations.
    """

    origins: list[Tensor]  # float64 [features]: the first sample
    deviations: list[Tensor]  # Σ deviations
    squares: list[Tensor]  # Σ deviations²
    count: int = 0

    @classmethod
    def of(cls, origins: list[Tensor]) -> _Sums:
        return cls(origins, [torch.zeros_like(side) for side in origins], [torch.zeros_like(side) for side in origins])

    def scatter(self, side: int) -> Tensor:
        """Σ (value − mean of the stratum)² of each feature of a set."""
        return self.squares[side] - self.deviations[side].square() / self.count


class CorrelationStream(Stream[[Tensor, Tensor, str], Tensor]):
    """Running correlations, for callers that compute several things in one pass; see `feature_correlations`.

    With strata, such as the modalities, each stratum is centered by itself: the result is the correlation of deviations
    from the strata's means (the pooled within-group correlation of discriminant analysis). A difference between the
    means of the strata, such as the modality gap, then correlates no features. Memory: one matrix of features_a ×
    features_b in float64, and a second one for the result.
    """

    def __init__(self) -> None:
        self._strata: dict[str, _Sums] = {}
        self._count = 0
        self._product: Tensor  # [features_a, features_b]: Σ deviation of a · deviation of b, over all strata

    def add(
        self, a: Float[Tensor, "samples features_a"], b: Float[Tensor, "samples features_b"], stratum: str = ""
    ) -> None:
        """Add a block of activations of both sets, all of one stratum.

        Raises:
            NonFiniteError: an activation is NaN or infinite.
            ValueError: the sets have different numbers of samples.
        """
        check_tensor(a, "first set's sample")
        check_tensor(b, "second set's sample")
        if a.shape[:1] != b.shape[:1]:
            raise ValueError(f"{len(a)} samples of the first set but {len(b)} of the second: rows must belong together")
        if not len(a):
            return
        check_finite(a, "first set's sample", self._count)
        check_finite(b, "second set's sample", self._count)
        sums = self._sums(stratum, [double(side[0]) for side in (a, b)])
        moved = [double(side) - origin for side, origin in zip((a, b), sums.origins, strict=True)]
        for side, deviation in enumerate(moved):
            sums.deviations[side] += deviation.sum(0)
            sums.squares[side] += deviation.square().sum(0)
        self._add_product(*moved)
        sums.count += len(a)
        self._count += len(a)

    def _add_product(self, a: Tensor, b: Tensor) -> None:
        """Add Σ a · b over samples; of sparse codes only what is not 0, a thousandth of all products."""
        first, second = (compact(side) for side in (a, b)) if self._product.device.type == "cpu" else (None, None)
        if not isinstance(first, csr_array) or not isinstance(second, csr_array):
            self._product.addmm_(a.T, b)
            return
        found = (first.T.tocsr() @ second).tocoo()
        self._product.numpy()[found.coords] += found.data

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`."""
        for stratum, theirs in other._strata.items():
            sums = self._sums(stratum, theirs.origins)
            device = self._product.device
            deviations = [total.to(device) for total in theirs.deviations]
            # What their deviations lack to be deviations from this stream's first sample.
            moved = [new.to(device) - old for new, old in zip(theirs.origins, sums.origins, strict=True)]
            for side, square in enumerate(theirs.squares):
                sums.deviations[side] += deviations[side] + theirs.count * moved[side]
                sums.squares[side] += square.to(device) + moved[side] * (
                    2 * deviations[side] + theirs.count * moved[side]
                )
            self._product.addr_(deviations[0], moved[1])
            self._product.addr_(moved[0], deviations[1] + theirs.count * moved[1])
            sums.count += theirs.count
        if other._strata:
            self._product += other._product.to(self._product.device)
        self._count += other._count

    def _sums(self, stratum: str, first: list[Tensor]) -> _Sums:
        """Return the sums of a stratum, which are begun with its first sample if there are none."""
        if not self._strata:
            self._product = first[0].new_zeros(len(first[0]), len(first[1]))
        if stratum not in self._strata:
            self._strata[stratum] = _Sums.of(first)
        return self._strata[stratum]

    def result(self) -> Float64[Tensor, "features_a features_b"]:
        """Return the correlations over all samples added so far. Raises ValueError if there are none."""
        if not self._strata:
            raise ValueError("no activations to match features by")
        correlation = self._product.clone()
        for sums in self._strata.values():
            correlation.addr_(*sums.deviations, alpha=-1 / sums.count)
        scales = []
        for side in range(2):
            scatter = sum(sums.scatter(side) for sums in self._strata.values())
            squares = sum(sums.squares[side] for sums in self._strata.values())
            assert isinstance(scatter, Tensor)
            # Scatter that is this small relative to the squares is rounding error of a constant feature.
            scales.append(torch.where(scatter > 1e-14 * squares, scatter.clamp_min(0).rsqrt(), 0.0))
        return correlation.mul_(scales[0].unsqueeze(1)).mul_(scales[1]).clamp_(-1, 1).cpu()


def match_features(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"], str]],
) -> tuple[Int64[Tensor, " features"], Float64[Tensor, " features"]]:
    """Match the features of two dictionaries one to one by the correlation of their activations within each modality.

    Dictionaries trained with different seeds order their features differently. The assignment maximizes the sum of
    signed correlations (Hungarian algorithm). Each modality is centered by itself. Centered together, any two features
    that prefer the same modality correlate, whatever they mean, and matching by this makes scores of modality agree.
    For the same reason, scores should be compared on other pairs than features are matched on.

    Args:
        blocks: activations of both dictionaries, row by row on the same samples, with the modality of these samples;
            both dictionaries have the same number of features.

    Returns:
        For each feature of the first dictionary, the index of its match in the second one, and their correlation, which
        may be negative. Constant features, including silent ones, have correlation 0.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are no samples, or the dictionaries have different numbers of features.
    """
    stream = CorrelationStream()
    for a, b, modality in unpacked(blocks, "first, second, modality"):
        stream.add(a, b, modality)
    correlation = stream.result()
    if correlation.shape[0] != correlation.shape[1]:
        raise ValueError(
            f"{correlation.shape[0]} features cannot be matched one to one with {correlation.shape[1]}: "
            "compare dictionaries of the same width"
        )
    rows, columns = linear_sum_assignment(correlation.numpy(), maximize=True)
    return torch.from_numpy(columns), correlation[rows, columns]


def reordered(partition: Partition, order: Int64[Tensor, " features"]) -> Partition:
    """Renumber the features of a partition: feature i of the result is feature `order[i]` of the argument."""
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    return Partition(
        *(position[members].sort().values for members in (
            partition.image_dominant, partition.text_dominant, partition.cross_modal, partition.dead
        ))
    )  # fmt: skip
