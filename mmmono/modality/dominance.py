"""Modality Dominance Score (MDS, Eq. 1): how strongly the image modality dominates each feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, is_finite, single
from mmmono.core.parts import in_parts, num_parts
from mmmono.core.streams import Stream, require_equal
from mmmono.features import Rows, StoredRows
from mmmono.features.rows import in_full

Undefined = Literal["skip", "half"]

CHUNK_ROWS = 256  # a chunk of 256 × 1024 float32 numbers fits into a core's L2 cache


@dataclass(frozen=True)
class DominanceScores:
    """Modality dominance scores of a feature set, and the counts behind them.

    Attributes:
        scores: R(d) in [0, 1]; 1 if only images activate the feature, 0 if only texts do, NaN if nothing does.
        standard_error: standard error of R(d) over the pairs it averages; NaN for fewer than two.
        informative_pairs: number of pairs in which the image or the text activates the feature.
        image_active, text_active: number of images and of texts that activate the feature.
        num_pairs: number of all pairs.
    """

    scores: Float64[Tensor, " features"]
    standard_error: Float64[Tensor, " features"]
    informative_pairs: Int64[Tensor, " features"]
    image_active: Int64[Tensor, " features"]
    text_active: Int64[Tensor, " features"]
    num_pairs: int


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
) -> DominanceScores:
    """Compute Eq. 1 over blocks of paired activations in one pass and constant memory.

    Chunks of 256 rows are summed in float32 (or better), the chunks' sums in float64: scores of a million float32 pairs
    are accurate to 1e-7. The sums are of deviations from each feature's mean over the first chunk, so that the standard
    error stays accurate if all ratios are nearly equal. `StoredRows` are processed by a compiled loop. Block size and
    number of threads change results by less than 1e-7.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        undefined: see `modality_dominance_score`.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        StoreError: a stored embedding is NaN or infinite, or zero although it is to be normalized.
        ValueError: image and text blocks differ in shape, there is no block, or `undefined` is unknown.
    """
    stream = DominanceStream(undefined)
    for image, text in blocks:
        stream.add(image, text)
    return stream.result()


class DominanceStream(Stream[[Rows, Rows], DominanceScores]):
    """Running modality dominance scores (Eq. 1), for callers that compute several things in one pass.

    A pair's contrast is (|z_img| − |z_txt|) / (|z_img| + |z_txt|) = 2 · ratio − 1. Each thread sums contrasts minus a
    center per feature, so that mean and standard error stay accurate if both activations are nearly equal.

    Args:
        undefined: see `modality_dominance_score`.

    Raises:
        ValueError: `undefined` is unknown.
    """

    def __init__(self, undefined: Undefined = "skip") -> None:
        if undefined not in ("skip", "half"):
            raise ValueError(f"undefined={undefined!r} is neither 'skip' nor 'half'")
        self.undefined = undefined
        self._num_pairs = 0
        self._center: Tensor | None = None  # float32 [features]: mean contrast of the first chunk
        self._excess: Tensor | None = None  # float64 [threads, features]: sums of contrasts minus center
        self._squared: Tensor  # the same of their squares
        self._counts: Tensor  # int64 [threads, 3, features]: pairs active on either side, on images, on texts

    def add(self, image: Rows, text: Rows) -> None:
        """Add a block of pairs; row i of both sides belongs to the same pair. Errors: see `dominance_scores`."""
        if image.shape != text.shape or len(image.shape) != 2:
            raise ValueError(f"paired blocks [pairs, features] expected, got {tuple(image.shape)}, {tuple(text.shape)}")
        excess = self._sums(image.shape[1], image.device if isinstance(image, Tensor) else torch.device("cpu"))
        if isinstance(image, StoredRows) and isinstance(text, StoredRows):
            self._add_stored(image, text, excess)
            self._num_pairs += len(image)
        else:
            chunks = zip(in_full(image).split(CHUNK_ROWS), in_full(text).split(CHUNK_ROWS), strict=True)
            for image_chunk, text_chunk in chunks:
                self._add_tensors(single(image_chunk), single(text_chunk), excess)
                self._num_pairs += len(image_chunk)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        require_equal("undefined", self.undefined, other.undefined)
        if other._excess is None:
            return
        excess = self._sums(other._excess.shape[1], other._excess.device)
        counts, theirs, squared = (x.sum(0).to(excess.device) for x in (other._counts, other._excess, other._squared))
        if other._center is not None:
            center = other._center.to(excess.device)
            self._center = center.clone() if self._center is None else self._center
            # Σ(c − a) and Σ(c − a)² for this stream's center a, from the same sums for the other one's center.
            moved = center.double() - self._center.double()
            squared = squared + 2 * moved * theirs + counts[0] * moved.square()
            theirs = theirs + counts[0] * moved
        excess[0] += theirs
        self._squared[0] += squared
        self._counts[0] += counts
        self._num_pairs += other._num_pairs

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

    def _add_stored(self, image: StoredRows, text: StoredRows, sums: Tensor) -> None:
        from mmmono.core.kernels import add_ratios

        images, texts = image.numbers(), text.numbers()
        excess, squared, counts = sums.numpy(), self._squared.numpy(), self._counts.numpy()
        if self._center is None:
            self._centered_at(in_full(image.head(CHUNK_ROWS)), in_full(text.head(CHUNK_ROWS)))
        center = self._center.numpy() if self._center is not None else None

        def work(part: int, first: int, end: int) -> tuple[float, float]:
            mine = excess[part], squared[part], counts[part]
            lengths: tuple[float, float] = add_ratios(
                images[first:end], texts[first:end], image.normalize, *mine, center
            )
            return lengths

        lengths = in_parts(work, len(image), len(excess))
        image.check(lengths)
        text.check(lengths)

    def _add_tensors(self, image: Tensor, text: Tensor, excess: Tensor) -> None:
        if not image.numel():
            return
        magnitude, total = image.abs(), text.abs()
        extremes = [*magnitude.aminmax(), *total.aminmax()]
        if not is_finite(extremes[1], extremes[3]):
            check_finite(image, "image", self._num_pairs)
            check_finite(text, "text", self._num_pairs)
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
        count, excess, squared = informative.double(), self._excess.sum(0), self._squared.sum(0)
        center = 0.0 if self._center is None else self._center.double()
        if self.undefined == "half":  # silent pairs have contrast 0
            silent = self._num_pairs - count
            excess, squared, count = excess - center * silent, squared + center**2 * silent, count + silent
        deviation = excess / count
        mean = torch.where(informative > 0, ((1 + center + deviation) / 2).clamp(0, 1), torch.nan)
        variance = (squared / count - deviation.square()).clamp_min(0) * count / (count - 1)
        variance = torch.where(count > 1, variance, torch.nan)  # one pair's is rounding error over 0
        return DominanceScores(
            scores=mean.cpu(),
            standard_error=((variance / count).sqrt() / 2).cpu(),
            informative_pairs=informative.cpu(),
            image_active=image_active.cpu(),
            text_active=text_active.cpu(),
            num_pairs=self._num_pairs,
        )
