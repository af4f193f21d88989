"""Modality Dominance Score (MDS, Eq. 1): how strongly the image modality dominates each feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.errors import NonFiniteError, StoreError
from mmmono.core.finite import check_finite, double, is_finite, single
from mmmono.core.parts import num_parts
from mmmono.core.streams import Stream, require_equal
from mmmono.features import KernelRows, Rows
from mmmono.features.rows import check_pairs, to_float32
from mmmono.modality.compiled import add_single_ratios, group_ratio_sums
from mmmono.modality.contrast_sums import ContrastSums, GroupedContrasts
from mmmono.modality.groups import (
    GroupsLike,
    WholeGroups,
    group_codes,
    group_sizes,
    grouped_blocks,
    numbered_groups,
    shared_groups,
)
from mmmono.modality.scores import DominanceScores, Undefined, check_undefined

EQUAL = 1e-12  # variance of contrasts up to which they count as equal
CHUNK_ROWS = 256  # a chunk of 256 × 1024 float32 numbers fits into a core's L2 cache


def modality_dominance_score(
    image_features: Float[Tensor, "pairs features"],
    text_features: Float[Tensor, "pairs features"],
    undefined: Undefined = "skip",
) -> Float64[Tensor, " features"]:
    """R(d), the mean over pairs of |z_img| / (|z_img| + |z_txt|) (Eq. 1, Section 2.1).

    Args:
        image_features: activations on the images.
        text_features: activations on the texts; row i belongs to image i.
        undefined: pairs in which both activations are 0 are left out (`skip`) or count as 0.5 (`half`).

    Returns:
        Scores in [0, 1]; NaN for features that no sample activates.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        TypeError: activations are no tensors.
        ValueError: the shapes differ.
    """
    return dominance_scores([(image_features, text_features)], undefined).scores


def paired_ratio(
    image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]
) -> Float[Tensor, "pairs features"]:
    """Ratio |z_img| / (|z_img| + |z_txt|) of each pair, which Eq. 1 averages; NaN where both activations are 0.

    Computed in float32, or in float64 for float64 (and integer) activations.
    """
    image, text = single(image), single(text)
    magnitude = image.abs()
    return magnitude / (magnitude + text.abs())


def dominance_scores(
    blocks: Iterable[tuple[Rows, Rows]],
    undefined: Undefined = "skip",
    groups: GroupsLike | None = None,
) -> DominanceScores:
    """Compute Eq. 1 over blocks of paired activations in one pass and constant memory.

    Chunks of 256 rows are summed in float32 (or better), the chunks' sums in float64: scores of a million float32 pairs
    are accurate to 1e-7. The sums are of deviations from each feature's mean over the first chunk, so that the standard
    error stays accurate if all ratios are nearly equal. `KernelRows` are processed by a compiled loop. Block size and
    number of threads change results by less than 1e-7.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        undefined: see `modality_dominance_score`.
        groups: the group of each pair of all blocks, as a number from 0 on (`FeatureView.groups`); by default, each pair
            is a group of its own.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        StoreError: a stored embedding is NaN or infinite, or zero although it is to be normalized.
        ValueError: image and text blocks differ in shape, there is no block, `undefined` is unknown, or there are more or
            fewer groups than pairs.
    """
    codes = None if groups is None else numbered_groups(groups)
    shared = None if codes is None else shared_groups(codes)
    sizes = None if shared is None else group_sizes(shared)
    stream = DominanceStream(undefined, sizes)
    for image, text, of_block in grouped_blocks(blocks, codes if shared is None else shared):
        stream.add(image, text, None if shared is None else of_block)
    return stream.result()


class DominanceStream(Stream[[Rows, Rows], DominanceScores]):
    """Running modality dominance scores (Eq. 1), for callers that compute several things in one pass.

    A pair's contrast is (|z_img| − |z_txt|) / (|z_img| + |z_txt|) = 2 · ratio − 1. Each thread sums contrasts minus a
    center per feature, so that mean and standard error stay accurate if both activations are nearly equal.

    Pairs of groups of several are summed by group. With `group_sizes`, memory holds only the groups that have begun and
    not ended; streams of parts of a store may share groups, and can be merged.

    Args:
        undefined: see `modality_dominance_score`.
        group_sizes: number of pairs of each group, over all blocks and streams to be merged (see `group_sizes`); None:
            not known, and all groups given to `add` stay in memory.

    Raises:
        ValueError: `undefined` is unknown.
    """

    def __init__(self, undefined: Undefined = "skip", group_sizes: np.ndarray | None = None) -> None:
        check_undefined(undefined)
        self.undefined = undefined
        self.group_sizes = group_sizes
        self._num_alone = 0  # pairs that are groups of their own
        self._grouped: GroupedContrasts | None = None  # the other pairs
        self._center: Tensor | None = None  # float32 [features]: mean contrast of the first chunk
        self._excess: Tensor | None = None  # float64 [threads, features]: sums of contrasts minus center, pairs alone
        self._squared: Tensor  # the same of their squares
        self._counts: Tensor  # int64 [threads, 3, features]: pairs active on either side, on images, on texts

    def add(self, image: Rows, text: Rows, groups: GroupsLike | None = None) -> None:
        """Add a block of pairs; row i of both sides belongs to the same pair. Errors: see `dominance_scores`.

        Args:
            image, text: activations.
            groups: the group of each pair of the block; None: each is a group of its own.
        """
        check_pairs(image, text, None if self._excess is None else self._excess.shape[1])
        self._sums(image.shape[1], image.device if isinstance(image, Tensor) else torch.device("cpu"))
        codes = None if groups is None else group_codes(groups)
        if codes is not None and len(codes) != image.shape[0]:
            raise ValueError(f"{len(codes)} groups given for a block of {image.shape[0]} pairs: give one for each pair")
        alone = self._alone(codes)
        if codes is None or alone is None:
            self._add_alone(image, text)
            return
        start, together = self.num_pairs, np.flatnonzero(~alone)
        try:
            self._add_alone(*(_picked(rows, np.flatnonzero(alone)) for rows in (image, text)))
            self._add_together(_picked(image, together), _picked(text, together), codes[together])
        except (NonFiniteError, StoreError):
            for rows, name in ((image, "image"), (text, "text")):  # names the row among all those of the block
                check_finite(to_float32(rows), name, start)
            raise

    def shared(self) -> tuple[object, ...]:
        """Return the sizes of all groups; see `Stream.shared`."""
        return (self.group_sizes,)

    @property
    def num_pairs(self) -> int:
        """Number of pairs so far."""
        return self._num_alone + (0 if self._grouped is None else self._grouped.num_pairs)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream, also of groups that both have begun; see `Stream.merge`."""
        require_equal("undefined", self.undefined, other.undefined)
        if not _same(self.group_sizes, other.group_sizes):
            raise ValueError("streams with different group_sizes cannot be merged: give all those of the whole data")
        if other._excess is None:
            return
        excess = self._sums(other._excess.shape[1], other._excess.device)
        counts, theirs, squared = (x.sum(0).to(excess.device) for x in (other._counts, other._excess, other._squared))
        moved = torch.zeros_like(theirs)
        if other._center is not None:
            center = other._center.to(excess.device)
            self._center = center.clone() if self._center is None else self._center
            # Σ(c − a) and Σ(c − a)² for this stream's center a, from the same sums for the other one's center.
            moved = center.double() - self._center.double()
            alone = counts[0] if other._grouped is None else counts[0] - other._grouped.informative.to(excess.device)
            squared = squared + 2 * moved * theirs + alone * moved.square()
            theirs = theirs + alone * moved
        excess[0] += theirs
        self._squared[0] += squared
        self._counts[0] += counts
        self._num_alone += other._num_alone
        if other._grouped is not None:
            self._together().merge(other._grouped, moved)

    def _alone(self, codes: np.ndarray | None) -> np.ndarray | None:
        """Mask of the pairs that are groups of their own; None if all are."""
        if codes is None:
            return None
        if self.group_sizes is None:
            return np.zeros(len(codes), dtype=bool)
        if len(codes) and codes.max() >= len(self.group_sizes):
            raise ValueError(f"group {codes.max()} is not among the {len(self.group_sizes)} of group_sizes")
        alone: np.ndarray = self.group_sizes[codes] == 1
        return None if alone.all() else alone

    def _together(self) -> GroupedContrasts:
        assert self._excess is not None
        if self._grouped is None:
            self._grouped = GroupedContrasts(self._excess.shape[1], self.group_sizes, self._excess.device)
        return self._grouped

    def _add_alone(self, image: Rows, text: Rows) -> None:
        assert self._excess is not None
        if isinstance(image, KernelRows) and isinstance(text, KernelRows):
            sums = self._excess, self._squared, self._counts
            add_single_ratios(image, text, self._center_of(image, text), sums, self.num_pairs)
            self._num_alone += len(image)
            return
        for image_chunk, text_chunk in zip(
            to_float32(image).split(CHUNK_ROWS), to_float32(text).split(CHUNK_ROWS), strict=True
        ):
            self._add_tensors(single(image_chunk), single(text_chunk), self._excess)
            self._num_alone += len(image_chunk)

    def _add_together(self, image: Rows, text: Rows, codes: np.ndarray) -> None:
        if isinstance(image, KernelRows) and isinstance(text, KernelRows) and self.group_sizes is not None:
            groups, grouped = WholeGroups.of(codes, self.group_sizes, self._together().open), self._together()
            half, center = self.undefined == "half", self._center_of(image, text)
            sums = group_ratio_sums(image, text, groups, center, half, self.num_pairs)
            self._counts[0] += grouped.add_sums(sums, len(groups.rows), len(groups))
            image, text, codes = _picked(image, groups.rest), _picked(text, groups.rest), codes[groups.rest]
        self._add_grouped_tensors(to_float32(image), to_float32(text), codes)

    def _add_grouped_tensors(self, image: Tensor, text: Tensor, codes: np.ndarray) -> None:
        """Add pairs of groups of which some may lie in other blocks."""
        for rows, name in ((image, "image"), (text, "text")):
            check_finite(rows, name, self.num_pairs)
        center = self._centered_at(single(image[:CHUNK_ROWS]), single(text[:CHUNK_ROWS])).double()
        a, b = double(image).abs() / 2, double(text).abs() / 2  # halves, so that their sum does not overflow
        known = (a > 0) | (b > 0)
        contrast = ((a - b) / (a + b)).nan_to_num_(0.0)  # activations are finite, so only 0/0 is NaN
        counted = known if self.undefined == "skip" else torch.ones_like(known)
        deviation = (contrast - center).masked_fill_(~counted, 0.0)
        self._counts[0] += torch.stack([known.sum(0), (a > 0).sum(0), (b > 0).sum(0)])
        self._together().add(codes, deviation, counted, known)

    def _sums(self, features: int, device: torch.device) -> Tensor:
        """Return the sums of contrasts; the first call makes all sums."""
        if self._excess is None:
            self._excess = torch.zeros(num_parts(), features, dtype=torch.float64, device=device)
            self._squared = torch.zeros_like(self._excess)
            self._counts = torch.zeros(num_parts(), 3, features, dtype=torch.int64, device=device)
        return self._excess

    def _centered_at(self, image: Tensor, text: Tensor) -> Tensor:
        if self._center is None and len(image):
            self._center = (2 * paired_ratio(image, text) - 1).nanmean(0).nan_to_num(0.0).float()
        return image.new_zeros(image.shape[1:], dtype=torch.float32) if self._center is None else self._center

    def _center_of(self, image: KernelRows, text: KernelRows) -> Tensor:
        if self._center is not None:
            return self._center
        return self._centered_at(*(to_float32(rows.chosen(slice(CHUNK_ROWS))) for rows in (image, text)))

    def _add_tensors(self, image: Tensor, text: Tensor, excess: Tensor) -> None:
        if not image.numel():
            return
        magnitude, total = image.abs(), text.abs()
        extremes = [*magnitude.aminmax(), *total.aminmax()]
        if not is_finite(extremes[1], extremes[3]):
            check_finite(image, "image", self.num_pairs)
            check_finite(text, "text", self.num_pairs)
        if max(extremes[1], extremes[3]) > torch.finfo(image.dtype).max / 2:  # so that their sum does not overflow
            image, text, magnitude, total = (x.double() / 2 for x in (image, text, magnitude, total))
        center = self._centered_at(image, text)
        sparse = bool(extremes[0] == 0) or bool(extremes[2] == 0)
        informative, image_active, text_active = self._counts[0]
        if sparse:
            image_active += (magnitude > 0).sum(0)
            text_active += (total > 0).sum(0)
        contrast = magnitude - total
        total += magnitude
        if sparse:
            informative += (total > 0).sum(0)
        else:
            self._counts[0] += len(image)
        deviation = contrast.div_(total).sub_(center)
        if sparse:
            deviation.nan_to_num_(0.0)  # inputs are finite, so only 0/0 is NaN
        excess[0] += deviation.sum(0)
        self._squared[0] += deviation.square_().sum(0)

    def result(self) -> DominanceScores:
        """Return the scores over all pairs added so far. Raises ValueError if no block was added."""
        if self._excess is None:
            raise ValueError("no activations to score")
        informative, image_active, text_active = self._counts.sum(0)
        sums, informative_groups = self._all_sums(informative)
        deviation, by_group, by_pair = sums.scatter()
        center = 0.0 if self._center is None else self._center.double()
        groups, pairs = sums.groups, sums.pairs
        mean = torch.where(informative > 0, ((1 + center + deviation) / 2).clamp(0, 1), torch.nan)
        # With one group, or one pair, this is a rounding error divided by 0.
        variance = torch.where(groups > 1, by_group * groups / (groups - 1), torch.nan)
        independent = by_pair * pairs / (pairs - 1)
        null = torch.where(informative > 0, sums.squares_about(center).sqrt() / pairs / 2, torch.nan)
        return DominanceScores(
            scores=mean.cpu(),
            standard_error=((variance / pairs).sqrt() / 2).cpu(),
            null_error=null.cpu(),
            design_effect=torch.where((pairs > 1) & (independent > EQUAL), variance / independent, 1.0).cpu(),
            effective_groups=(pairs.square() / sums.size_squares).nan_to_num(0.0).cpu(),
            informative_pairs=informative.cpu(),
            informative_groups=informative_groups.cpu(),
            image_active=image_active.cpu(),
            text_active=text_active.cpu(),
            num_pairs=self.num_pairs,
            num_groups=self._num_alone + (0 if self._grouped is None else self._grouped.num_groups),
        )

    def _all_sums(self, informative: Tensor) -> tuple[ContrastSums, Tensor]:
        """Sums over the pairs that are alone and over groups, and the number of groups that activate each feature."""
        assert self._excess is not None
        excess, squared = self._excess.sum(0), self._squared.sum(0)
        alone = informative if self._grouped is None else informative - self._grouped.informative
        count = alone.double()
        if self.undefined == "half":  # silent pairs have contrast 0
            center = 0.0 if self._center is None else self._center.double()
            silent = self._num_alone - count
            excess, squared, count = excess - center * silent, squared + center**2 * silent, count + silent
        sums = ContrastSums.of_single_pairs(count, excess, squared)
        if self._grouped is None:
            return sums, alone
        together, groups = self._grouped.sums()
        return sums + together, alone + groups


def _picked(rows: Rows, places: np.ndarray) -> Rows:
    """Return some rows."""
    where = torch.from_numpy(places)
    if len(places) == len(rows):
        return rows
    return rows.chosen(where) if isinstance(rows, KernelRows) else rows[where.to(rows.device)]


def _same(mine: np.ndarray | None, others: np.ndarray | None) -> bool:
    return mine is others or (mine is not None and others is not None and np.array_equal(mine, others))
