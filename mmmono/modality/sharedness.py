"""Sharedness: do the image and the text of a pair activate a feature together, more than those of different pairs?

On real features R(d) (Eq. 1) hardly changes when each image gets another image's text (docs/what_r_of_d_is.md). It says
which modality activates a feature more, not whether the two sides of a pair agree. This module asks the latter, of every
feature and in one pass.

The score is a Pearson correlation across pairs, 0 in expectation if pairs are broken and independent of the two modalities'
gains. Of groups of pairs it is that within groups of about the same size, since both sides of a large group fire more often
than those of a small one, whatever they share. A feature that is silent in at least half of the images and of the texts is
*sparse*: what is correlated is whether it fires (the phi coefficient), and the test is that of co-firing. Any other feature
is *dense*: its activations are correlated. One kind of correlation for both would lose.
AUROC of 100 weakly shared against 100 unshared features of 1,000 pairs, mean
over 5 seeds (tests/modality/test_sharedness_choice.py computes it):

| features                           | activations z | magnitudes abs(z) | firing |
|------------------------------------|---------------|-------------------|--------|
| sparse, strengths of light tails   | .93           | .93               | .95    |
| sparse, log-normal strengths       | .77           | .77               | .95    |
| dense, means of 0                  | .98           | .56               | –      |
| dense, means of + 1 and − 1        | .98           | .05               | –      |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, check_mask, single
from mmmono.core.streams import Stream
from mmmono.features import KernelRows, Rows
from mmmono.features.grouping import GroupNumbers
from mmmono.features.rows import check_pairs, picked, to_float32
from mmmono.modality.broken_pairs import POWERS, Moments, broken_pairs_test, correlation_interval, firing_interval
from mmmono.modality.compiled import product_sums
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.grouped import GroupAverages, Units
from mmmono.modality.groups import GroupsLike, WholeGroups, grouped_blocks, numbered_groups

LARGEST = 5  # class of the largest groups, of more than 16 pairs
CHUNK_ROWS = 256  # a chunk of 256 × 1,024 float64 numbers fits into a core's second-level cache


@dataclass(frozen=True)
class Sharedness:
    """Sharedness of every feature of a feature set.

    Attributes:
        score: correlation across pairs of firing (sparse features) or of activations (dense ones), in [−1, 1]; 0 if the
            feature is constant on one side, NaN if it is on both.
        low, high: 95 % interval of the score; NaN where the feature is constant on a side, or groups are too few.
        p_value: one-sided p-value of a positive association against broken pairs; 1 if the feature is constant on one
            side, NaN if it is on both.
        sparse: whether the feature is silent in at least half of the images and of the texts.
        co_firing: number of groups in which both sides fire.
        expected: that number in expectation if pairs are broken.
        image_firing, text_firing: number of groups of which the images, or the texts, fire.
        correlation: correlation of the activations, also of sparse features.
        phi: correlation of firing, also of dense features; NaN if every side fires, or none.
        num_pairs, num_groups: number of pairs and of groups.
    """

    score: Float64[Tensor, " features"]
    low: Float64[Tensor, " features"]
    high: Float64[Tensor, " features"]
    p_value: Float64[Tensor, " features"]
    sparse: Bool[Tensor, " features"]
    co_firing: Int64[Tensor, " features"]
    expected: Float64[Tensor, " features"]
    image_firing: Int64[Tensor, " features"]
    text_firing: Int64[Tensor, " features"]
    correlation: Float64[Tensor, " features"]
    phi: Float64[Tensor, " features"]
    num_pairs: int
    num_groups: int

    def q_value(self, live: Bool[Tensor, " features"]) -> Float64[Tensor, " features"]:
        """Adjust the p-values of the live features for their number (Benjamini and Hochberg 1995); NaN for the others.

        Raises:
            TypeError, ValueError: `live` is no mask of these features.
        """
        check_mask(live, "live", len(self.p_value))
        return q_values(self.p_value.where(live, torch.nan))


def sharedness_scores(blocks: Iterable[tuple[Rows, Rows]], groups: GroupsLike | None = None) -> Sharedness:
    """Score and test in one pass whether image and text of a pair activate each feature together.

    The null is broken pairs: the images' activations as they are, the texts' as they are, but not of the same thing. It is
    what random re-pairing gives, of whole groups among groups of about the same size (1, 2, 3–4, 5–8, 9–16, more).

    - Sparse features: the number of groups in which both sides fire. Without groups, re-pairing gives the hypergeometric
      distribution, exactly (Fisher's test); with groups, that of a sum of one for each size, of features that fire often by
      its first three moments. p-values are mid-p-values (Lancaster 1961), P(more) + ½ P(as many), because exact ones of rare
      features are too large.
    - Dense features: the covariance. Its mean, variance and skewness under re-pairing are known exactly, and a Pearson III
      distribution has them (Mielke and Berry 2007, Permutation Methods, section 2.3). Where the fourth moment says that
      tails are heavier, Student's t takes its place; see `broken_pairs_test`.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        groups: group of each pair, as numbers from 0 on; None if all pairs are independent. Pairs of one group (captions
            of one image, variants of one drawing) are one unit: their activations are averaged, and a side fires if any of
            its samples does.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        StoreError: a stored embedding is NaN or infinite, or zero although it is to be normalized.
        ValueError: image and text blocks differ in shape, there is no block, or `groups` has another length or other
            than whole numbers from 0 on.
    """
    codes = None if groups is None else numbered_groups(groups)
    stream = SharednessStream(codes)
    for image, text, of_block in grouped_blocks(blocks, codes):
        stream.add(image, text, of_block)
    return stream.result()


class SharednessStream(Stream[[Rows, Rows, GroupNumbers | None], Sharedness]):
    """Running sharedness, for callers that compute several things in one pass; see `sharedness_scores`.

    Keeps sums of powers up to the fourth in float64. They are accurate to 1e-6 while a feature's mean is below 1,000 times
    its standard deviation.

    Args:
        groups: group of each of all pairs that will be added, in any order; None if all are independent.
    """

    def __init__(self, groups: GroupNumbers | None = None) -> None:
        self._averages = GroupAverages(groups)
        self._moments: dict[int, Moments] = {}  # by class of group sizes
        self._pairs = 0
        self._features: int | None = None

    def shared(self) -> tuple[object, ...]:
        """Return the sizes of all groups; see `Stream.shared`."""
        return (self._averages.sizes,)

    def add(self, image: Rows, text: Rows, codes: GroupNumbers | None = None) -> None:
        """Add a block of pairs; row i of both sides belongs to the same pair.

        Args:
            image, text: activations.
            codes: group of each pair of the block, if the stream has groups.

        Raises:
            NonFiniteError, StoreError, ValueError: see `sharedness_scores`.
        """
        check_pairs(image, text, self._features)
        self._features = image.shape[1]
        if isinstance(image, KernelRows) and isinstance(text, KernelRows):
            groups = self._averages.whole(len(image), codes)
            self._add_whole(image, text, groups)
            images, texts = (picked(rows, groups.rest, self._pairs) for rows in (image, text))
            codes = None if codes is None else codes[groups.rest]
        else:
            images, texts = single(to_float32(image)), single(to_float32(text))
            check_finite(images, "image", self._pairs)
            check_finite(texts, "text", self._pairs)
        for start in range(0, len(images), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            self._count(self._averages.add(images[rows], texts[rows], None if codes is None else codes[rows]))
        self._pairs += len(image)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        self._count(self._averages.merge(other._averages))
        for size, moments in other._moments.items():
            self._moments[size] = moments.plus(self._moments.get(size))
        self._pairs += other._pairs
        self._features = self._features if other._features is None else other._features

    def _add_whole(self, image: KernelRows, text: KernelRows, groups: WholeGroups) -> None:
        """Add groups of a block that have all their pairs in it."""
        sizes = _size_class(groups.sizes)
        for number, sums in enumerate(product_sums(image, text, groups, sizes, self._pairs)):
            if count := int((sizes == number).sum()):
                firing = sums[len(POWERS) :].long()
                self._moments[number] = Moments(count, sums[: len(POWERS)], *firing).plus(self._moments.get(number))

    def _count(self, complete: Iterable[Units]) -> None:
        for size, moments in _by_size(complete):
            self._moments[size] = moments.plus(self._moments.get(size))

    def result(self) -> Sharedness:
        """Return the sharedness over all pairs so far. Raises ValueError if no block was added."""
        if self._features is None:
            raise ValueError("no activations to compare")
        classes = dict(self._moments)
        for size, moments in _by_size(self._averages.rest()):
            classes[size] = moments.plus(classes.get(size))
        parts = [classes[size] for size in sorted(classes)] or [Moments.none(self._features)]
        total = parts[0]
        for part in parts[1:]:
            total = total.plus(part)
        sparse = 2 * torch.maximum(total.image_firing, total.text_firing) <= total.count
        firing, values = ([p.firing() for p in parts], parts)
        p_value = torch.where(sparse, broken_pairs_test(firing, counts=True), broken_pairs_test(values))
        phi, correlation = firing_interval(parts), correlation_interval(parts)
        chosen = torch.where(sparse, torch.stack(phi), torch.stack(correlation))
        measured = {
            "score": chosen[0], "low": chosen[1], "high": chosen[2], "p_value": p_value, "sparse": sparse,
            "co_firing": total.both_firing, "expected": torch.stack([p.expected_co_firing() for p in parts]).sum(0),
            "image_firing": total.image_firing, "text_firing": total.text_firing,
            "correlation": correlation[0], "phi": phi[0],
        }  # fmt: skip
        return Sharedness(
            **{name: x.cpu() for name, x in measured.items()}, num_pairs=self._pairs, num_groups=int(total.count)
        )


def _size_class(pairs: GroupNumbers) -> GroupNumbers:
    """Class of groups of so many pairs each: 0 for one pair, 1 for two, 2 for three and four, and so on to 5."""
    return np.minimum(np.ceil(np.log2(pairs)).astype(np.int64), LARGEST)


def _by_size(complete: Iterable[Units]) -> Iterable[tuple[int, Moments]]:
    """Moments of groups by the class of their sizes."""
    for units in complete:
        size = _size_class(units.pairs)
        for number in np.unique(size):
            yield int(number), Moments.of(units.chosen(size == number))
