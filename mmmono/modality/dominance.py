"""Modality Dominance Score (MDS, Eq. 1): how strongly the image modality dominates each feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, is_finite, single
from mmmono.core.parts import in_parts, num_parts
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
    if undefined not in ("skip", "half"):
        raise ValueError(f"undefined={undefined!r} is neither 'skip' nor 'half'")
    sums: _Sums | None = None
    for image, text in blocks:
        if image.shape != text.shape or len(image.shape) != 2:
            raise ValueError(f"paired blocks [pairs, features] expected, got {tuple(image.shape)}, {tuple(text.shape)}")
        sums = sums or _Sums(image.shape[1], image.device if isinstance(image, Tensor) else torch.device("cpu"))
        sums.add(image, text)
    if sums is None:
        raise ValueError("no activations to score")
    return sums.scores(undefined)


class _Sums:
    """Running sums over pairs for each feature, kept separately for each thread.

    A pair's contrast is (|z_img| − |z_txt|) / (|z_img| + |z_txt|) = 2 · ratio − 1. The sums are of contrasts minus a
    center per feature, so that mean and standard error stay accurate if both activations are nearly equal.
    """

    def __init__(self, features: int, device: torch.device) -> None:
        self.excess = torch.zeros(num_parts(), features, dtype=torch.float64, device=device)
        self.squared = torch.zeros_like(self.excess)
        self.counts = torch.zeros(num_parts(), 3, features, dtype=torch.int64, device=device)
        self.num_pairs = 0
        self.center: Tensor | None = None  # float32 [features]: mean contrast of the first chunk

    def add(self, image: Rows, text: Rows) -> None:
        if isinstance(image, StoredRows) and isinstance(text, StoredRows):
            self._add_stored(image, text)
            self.num_pairs += len(image)
        else:
            chunks = zip(in_full(image).split(CHUNK_ROWS), in_full(text).split(CHUNK_ROWS), strict=True)
            for image_chunk, text_chunk in chunks:
                self._add_tensors(single(image_chunk), single(text_chunk))
                self.num_pairs += len(image_chunk)

    def _center(self, image: Tensor, text: Tensor) -> Tensor:
        if self.center is None and len(image):
            self.center = (2 * paired_ratio(image, text) - 1).nanmean(0).nan_to_num(0.0).float()
        return image.new_zeros(image.shape[1:], dtype=torch.float32) if self.center is None else self.center

    def _add_stored(self, image: StoredRows, text: StoredRows) -> None:
        from mmmono.core.kernels import add_ratios

        images, texts = image.numbers(), text.numbers()
        excess, squared, counts = self.excess.numpy(), self.squared.numpy(), self.counts.numpy()
        if self.center is None:
            self._center(in_full(image.head(CHUNK_ROWS)), in_full(text.head(CHUNK_ROWS)))
        center = self.center.numpy() if self.center is not None else None

        def work(part: int, first: int, end: int) -> tuple[float, float]:
            sums = excess[part], squared[part], counts[part]
            lengths: tuple[float, float] = add_ratios(
                images[first:end], texts[first:end], image.normalize, *sums, center
            )
            return lengths

        lengths = in_parts(work, len(image), len(excess))
        image.check(lengths)
        text.check(lengths)

    def _add_tensors(self, image: Tensor, text: Tensor) -> None:
        if not image.numel():
            return
        magnitude, total = image.abs(), text.abs()
        extremes = [*magnitude.aminmax(), *total.aminmax()]
        if not is_finite(extremes[1], extremes[3]):
            check_finite(image, "image", self.num_pairs)
            check_finite(text, "text", self.num_pairs)
        if max(extremes[1], extremes[3]) > torch.finfo(image.dtype).max / 2:  # so that their sum does not overflow
            image, text, magnitude, total = (x.double() / 2 for x in (image, text, magnitude, total))
        center = self._center(image, text)
        sparse = bool(extremes[0] == 0) or bool(extremes[2] == 0)
        informative, image_active, text_active = self.counts[0]
        if sparse:
            image_active += (magnitude > 0).sum(0)
            text_active += (total > 0).sum(0)
        contrast = magnitude - total
        total += magnitude
        if sparse:
            informative += (total > 0).sum(0)
        else:
            self.counts[0] += len(image)
        deviation = contrast.div_(total).sub_(center)
        if sparse:
            deviation.nan_to_num_(0.0)  # inputs are finite, so only 0/0 is NaN
        self.excess[0] += deviation.sum(0)
        self.squared[0] += deviation.square_().sum(0)

    def scores(self, undefined: Undefined) -> DominanceScores:
        informative, image_active, text_active = self.counts.sum(0)
        count, excess, squared = informative.double(), self.excess.sum(0), self.squared.sum(0)
        center = 0.0 if self.center is None else self.center.double()
        if undefined == "half":  # silent pairs have contrast 0
            silent = self.num_pairs - count
            excess, squared, count = excess - center * silent, squared + center**2 * silent, count + silent
        deviation = excess / count
        mean = torch.where(informative > 0, ((1 + center + deviation) / 2).clamp(0, 1), torch.nan)
        variance = (squared / count - deviation.square()).clamp_min(0) * count / (count - 1)
        return DominanceScores(
            scores=mean.cpu(),
            standard_error=((variance / count).sqrt() / 2).cpu(),
            informative_pairs=informative.cpu(),
            image_active=image_active.cpu(),
            text_active=text_active.cpu(),
            num_pairs=self.num_pairs,
        )
