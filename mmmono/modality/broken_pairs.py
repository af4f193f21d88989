"""Test whether images and texts of pairs agree more than randomly re-paired ones, from moments of their activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.special import gammaln
from scipy.stats import hypergeom, norm, pearson3
from scipy.stats import t as student
from torch import Tensor

from mmmono.modality.grouped import Units

Array = np.ndarray[Any, Any]
POWERS = tuple((a, b) for a in range(5) for b in range(5 - a) if a + b)  # of Σ xᵃ yᵇ
CONSTANT = 1e-12  # a sum of squared deviations below this share of the sum of squares is rounding
EXACT = 2_000  # up to so many firings of the rarer side the hypergeometric distribution is summed
EXACT_IN_PARTS = 200  # the same of several parts, by how many units both sides may fire in at most
CHUNK_FEATURES = 1024  # features whose distributions are summed at a time
COVERAGE = 0.95
LEAST_FREE = 3  # units less parts, from which on a correlation has an interval


@dataclass(frozen=True)
class Moments:
    """Sums over units of the powers of their activations, and how many of them fire; at most the fourth order.

    Attributes:
        count: number of units; fractional after smoothing.
        powers: Σ xᵃ yᵇ for the exponents POWERS, of the activations x on images and y on texts.
        image_firing, text_firing, both_firing: number of units of which the image, the text, or both fire.
    """

    count: float
    powers: Float64[Tensor, "powers features"]
    image_firing: Int64[Tensor, " features"]
    text_firing: Int64[Tensor, " features"]
    both_firing: Int64[Tensor, " features"]

    @classmethod
    def of(cls, units: Units) -> Moments:
        """Sum over units."""
        x, y = units.image, units.text
        xx, xy, yy = x * x, x * y, y * y
        products = {
            (1, 0): x, (0, 1): y, (2, 0): xx, (1, 1): xy, (0, 2): yy,
            (3, 0): xx * x, (2, 1): xx * y, (1, 2): x * yy, (0, 3): yy * y,
            (4, 0): xx * xx, (3, 1): xx * xy, (2, 2): xy * xy, (1, 3): xy * yy, (0, 4): yy * yy,
        }  # fmt: skip
        sums = torch.stack([products[power].sum(0) for power in POWERS])
        image, text = units.image_fires, units.text_fires
        return cls(len(x), sums, image.sum(0), text.sum(0), (image & text).sum(0))

    @classmethod
    def none(cls, features: int) -> Moments:
        """Sums over no unit."""
        zero = torch.zeros(features, dtype=torch.int64)
        return cls(0, torch.zeros(len(POWERS), features, dtype=torch.float64), zero, zero, zero)

    def plus(self, other: Moments | None) -> Moments:
        """Sums over the units of both."""
        if other is None:
            return self
        device = other.powers.device
        sums = (
            getattr(other, name) + getattr(self, name).to(device)
            for name in ("powers", "image_firing", "text_firing", "both_firing")
        )
        return Moments(self.count + other.count, *sums)

    def firing(self) -> Moments:
        """Sums of the indicators of firing, 1 or 0, in place of the activations."""
        sums = [self.both_firing if a and b else self.image_firing if a else self.text_firing for a, b in POWERS]
        return Moments(self.count, torch.stack(sums).double(), self.image_firing, self.text_firing, self.both_firing)

    def central(self, a: int, b: int) -> Float64[Tensor, " features"]:
        """Σ (x − x̄)ᵃ (y − ȳ)ᵇ, exactly 0 for a constant x or y."""
        mean = {side: self._sum(*side) / self.count for side in ((1, 0), (0, 1))}
        total = torch.zeros_like(mean[1, 0])
        for i in range(a + 1):
            for j in range(b + 1):
                weight = comb(a, i) * comb(b, j) * (-mean[1, 0]) ** (a - i) * (-mean[0, 1]) ** (b - j)
                total += weight * self._sum(i, j)
        constant = torch.zeros_like(total, dtype=torch.bool)
        for exponent, side in ((a, (2, 0)), (b, (0, 2))):
            if exponent:
                constant |= self._constant(side)
        return total.where(~constant, 0.0)

    def _constant(self, square: tuple[int, int]) -> Tensor:
        squares, mean = self._sum(*square), self._sum(square[0] // 2, square[1] // 2) / self.count
        return squares - self.count * mean.square() <= CONSTANT * squares

    def _sum(self, a: int, b: int) -> Tensor:
        return self.powers[POWERS.index((a, b))] if a + b else torch.full_like(self.powers[0], self.count)

    def expected_co_firing(self) -> Float64[Tensor, " features"]:
        """Number of units in which both sides fire if pairs are broken, in expectation."""
        return self.image_firing.double() * self.text_firing.double() / max(1, self.count)


def broken_pairs_test(parts: Sequence[Moments], counts: bool = False) -> Float64[Tensor, " features"]:
    """One-sided p-values of Σ x y against random re-pairing within each part.

    Under re-pairing, Σ (x − x̄)(y − ȳ) over n units has mean 0, variance Σ(x − x̄)² Σ(y − ȳ)² / (n − 1) and third moment
    n Σ(x − x̄)³ Σ(y − ȳ)³ / ((n − 1)(n − 2)), exactly; moments of independent parts add. The p-value is that of the Pearson
    III distribution with these moments. Where tails are heavier than its own, by the fourth moment (Pitman 1937), it is at
    least that of the Student's t distribution with such tails: of 1,000 unshared features whose values follow Student's t
    with 3 degrees of freedom, one would else have q ≤ .05.

    Args:
        parts: moments of units that may be re-paired with each other.
        counts: whether x and y are 0 or 1. p-values are then mid-p-values, P(more) + ½ P(as many): hypergeometric for a
            single part, of a sum of hypergeometric numbers for several, and for features that fire often by the Pearson III
            distribution half a count above and below. Of rare features in several parts its tail is far too heavy: a
            p-value of .0001 would come out as .001.

    Returns:
        p-values; 1 where x or y is constant in every part, NaN where both are.
    """
    excess, variance, third, fourth = (torch.zeros_like(parts[0].powers[0]) for _ in range(4))
    images, texts = torch.zeros_like(excess), torch.zeros_like(excess)
    for part in parts:
        if part.count < 2:
            continue
        x, y, n = part.central(2, 0), part.central(0, 2), part.count
        images, texts = images + x, texts + y
        excess += part.central(1, 1)
        variance += x * y / (n - 1)
        if n > 2:
            third += n * part.central(3, 0) * part.central(0, 3) / ((n - 1) * (n - 2))
        if n > 3:
            fourth += _fourth_cumulant(part)
    spread = variance.sqrt()
    skewness = third / spread**3
    if counts:
        p_value = (_pearson3((excess - 0.5) / spread, skewness) + _pearson3((excess + 0.5) / spread, skewness)) / 2
        p_value = _hypergeometric(parts[0], p_value) if len(parts) == 1 else _in_parts(parts, p_value)
    else:
        p_value = _pearson3(excess / spread, skewness)
        heavier = fourth / variance**2 - 1.5 * skewness**2  # excess kurtosis beyond that of Pearson III
        p_value = torch.where(heavier > 0, p_value.maximum(_heavy_tail(excess / spread, heavier)), p_value)
    return p_value.where(variance > 0, 1.0).where((images > 0) | (texts > 0), torch.nan).clamp(max=1.0)


def correlation_interval(parts: Sequence[Moments]) -> tuple[Tensor, Tensor, Tensor]:
    """Pearson's correlation within parts, with its 95 % interval, on the scale of Fisher's z.

    Deviations are from the mean of the unit's own part, so that parts with different means make no correlation: of large
    groups both sides fire more often than of small ones, whatever they share. Its standard error is the larger of two: that
    of any distribution with four moments (the delta method), and that of a normal distribution, (1 − r²) / √n. The former is
    too small where a handful of units decide. Fewer than three deviations that are free, as of two or three units, have no
    interval: such correlations are near 1 or −1 whatever the truth is.

    Args:
        parts: moments of units that may be re-paired with each other, as in `broken_pairs_test`.

    Returns:
        correlation, lower and upper end; correlations are 0 where one side is constant in every part and NaN where both are,
        and the ends are NaN in both cases and where there are too few units.
    """
    n = max(1, sum(part.count for part in parts))

    def mean(a: int, b: int) -> Tensor:
        return torch.stack([part.central(a, b) for part in parts]).sum(0) / n

    x, y = mean(2, 0), mean(0, 2)
    known = (x > 0) & (y > 0)
    r = (mean(1, 1) / (x * y).sqrt()).clamp(-1, 1)

    def standard(a: int, b: int) -> Tensor:
        return mean(a, b) / (x ** (a / 2) * y ** (b / 2))

    both = standard(2, 2)
    influence = both - r * (standard(3, 1) + standard(1, 3)) + r**2 / 4 * (standard(4, 0) + 2 * both + standard(0, 4))
    error = torch.maximum(influence.clamp_min(0).sqrt(), 1 - r**2) / max(1, n - 2 - len(parts)) ** 0.5
    reach = float(norm.isf((1 - COVERAGE) / 2)) * error / (1 - r**2)
    low, high = (torch.tanh(torch.atanh(r) + sign * reach) for sign in (-1, 1))
    bounded = known if n - len(parts) >= LEAST_FREE else torch.zeros_like(known)
    certain = r.abs() == 1
    r = r.where(known, torch.where((x > 0) | (y > 0), 0.0, torch.nan))
    low, high = (torch.where(certain, r, end).where(bounded, torch.nan) for end in (low, high))
    return r, low, high


def firing_interval(parts: Sequence[Moments]) -> tuple[Tensor, Tensor, Tensor]:
    """Phi coefficient of firing with its 95 % interval: that of `correlation_interval` with half a unit more in each cell.

    The halves are shared out among the parts by their numbers of units. Without them (Haldane 1956, Anscombe 1956) the
    intervals of features that fire four times a side hold the true value in 69 % instead of 95 %. Arguments and results are
    those of `correlation_interval`.
    """
    firing, count = [part.firing() for part in parts], max(1, sum(part.count for part in parts))
    phi, low, high = correlation_interval(firing)
    cells = torch.tensor([[0.5 if a and b else 1.0] for a, b in POWERS], dtype=torch.float64).to(phi.device)
    smoothed = [
        replace(part, count=part.count + 2 * share, powers=part.powers + share * cells)
        for part in firing
        if (share := part.count / count)
    ]
    _, lower, higher = correlation_interval(smoothed or firing)
    low, high = torch.minimum(phi, lower).where(~low.isnan(), torch.nan), torch.maximum(phi, higher)
    return phi, low, high.where(~low.isnan(), torch.nan)


def _fourth_cumulant(part: Moments) -> Tensor:
    """Of Σ (x − x̄)(y − ȳ) over re-pairings of more than three units (Pitman 1937, Biometrika 29, p. 322)."""
    n = part.count
    squares = [part.central(2, 0), part.central(0, 2)]
    kurtosis = [  # ratios of k-statistics, k₄ / k₂²
        n * (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * fourth / square**2 - 3 * (n - 1) / n)
        for fourth, square in zip((part.central(4, 0), part.central(0, 4)), squares, strict=True)
    ]
    share = (n - 2) * (n - 3) / (3 * n * (n - 1) ** 2) * kurtosis[0] * kurtosis[1]
    found = (squares[0] * squares[1]) ** 2 * (3 * (1 + share) / (n**2 - 1) - 3 / (n - 1) ** 2)
    return found.nan_to_num(0.0)  # of sides that are constant


def _heavy_tail(z: Tensor, kurtosis: Tensor) -> Float64[Tensor, " features"]:
    """Upper tail of the Student's t distribution with variance 1 and this excess kurtosis, 6 / (degrees of freedom − 4)."""
    freedom = (4 + 6 / kurtosis.clamp_min(1e-9)).cpu().numpy()
    tail = student.sf(z.cpu().numpy() * np.sqrt(freedom / (freedom - 2)), freedom)
    return torch.from_numpy(np.asarray(tail)).to(z.device)


def _pearson3(z: Tensor, skewness: Tensor) -> Float64[Tensor, " features"]:
    return torch.from_numpy(np.asarray(pearson3.sf(z.cpu().numpy(), skewness.cpu().numpy()))).to(z.device)


def _hypergeometric(part: Moments, otherwise: Tensor) -> Float64[Tensor, " features"]:
    """Exact mid-p-values of features that are not too common, and `otherwise` of the others."""
    image, text, both = (x.cpu().numpy() for x in (part.image_firing, part.text_firing, part.both_firing))
    rare = np.minimum(image, text) <= EXACT
    p_value = otherwise.cpu().numpy().copy()
    null = part.count, image[rare], text[rare]
    p_value[rare] = hypergeom.sf(both[rare], *null) + hypergeom.pmf(both[rare], *null) / 2
    return torch.from_numpy(p_value).to(otherwise.device)


def _in_parts(parts: Sequence[Moments], otherwise: Tensor) -> Float64[Tensor, " features"]:
    """Exact mid-p-values of features that are rare enough in several parts, and `otherwise` of the others."""
    counts = np.array([part.count for part in parts], np.float64)
    image, text, both = (
        np.stack([getattr(part, f"{side}_firing").cpu().numpy() for part in parts])
        for side in ("image", "text", "both")
    )
    most = np.minimum(image, text).sum(0)
    order = np.argsort(most, kind="stable")[: int((most <= EXACT_IN_PARTS).sum())]  # alike ones beside one another
    p_value = otherwise.cpu().numpy().copy()
    for start in range(0, len(order), CHUNK_FEATURES):
        chosen = order[start : start + CHUNK_FEATURES]
        chance = np.zeros((len(chosen), int(most[chosen].max()) + 1))
        chance[:, 0] = 1.0
        for count, images, texts in zip(counts, image[:, chosen], text[:, chosen], strict=True):
            own = _chance_of_both(count, images, texts)
            before, chance = chance, np.zeros_like(chance)
            for number, share in enumerate(own.T):
                chance[:, number:] += share[:, None] * before[:, : before.shape[1] - number]
        above = np.arange(chance.shape[1]) - both[:, chosen].sum(0)[:, None]
        p_value[chosen] = (chance * ((above > 0) + 0.5 * (above == 0))).sum(1)
    return torch.from_numpy(p_value).to(otherwise.device)


def _chance_of_both(count: float, image: Array, text: Array) -> Array:
    """Hypergeometric probabilities that both sides fire in 0, 1, … of so many units, `[features, numbers]`.

    They are `scipy.stats.hypergeom.pmf`, which takes up to twenty times as long for features that fire often.
    """
    number = np.arange(int(np.minimum(image, text).max()) + 1)
    image, text = image[:, None], text[:, None]
    cells = np.stack(np.broadcast_arrays(number, image - number, text - number, count - image - text + number))
    there = (cells >= 0).all(0)
    ways = gammaln(np.stack([image, count - image, text, count - text]) + 1.0).sum(0) - gammaln(count + 1)
    return np.exp(np.where(there, ways - gammaln(np.maximum(cells, 0) + 1.0).sum(0), -np.inf))
