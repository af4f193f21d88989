"""Outcome of the attack under each defense: the rows of Table 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import bootstrap
from torch import Tensor

from mmmono.case_studies.adversarial.success import SuccessRate, success_rate
from mmmono.modality import FeatureClass, Partition
from mmmono.modality.ablation import Interval

Array = np.ndarray[Any, Any]
TARGETS: tuple[FeatureClass, ...] = ("ImgD", "TextD", "CrossD")
RANDOM, ALL = "Random", "All"
BENIGN, CONTRAST, ATTACKED = "benign", "contrast", "attacked"


@dataclass(frozen=True)
class Condition:
    """Condition of the images that the victim sees.

    Attributes:
        aligned: class of features that the defense aligned, `Random` or `All`; without a defense, `benign`, `contrast`
            or `attacked` images.
        feature_set: feature set of the defense; empty without one.
        features: number of aligned features.
    """

    aligned: str
    feature_set: str = ""
    features: int = 0

    @property
    def slug(self) -> str:
        """Name of the condition in file names."""
        return f"{self.feature_set}-{self.aligned}-{self.features}" if self.feature_set else self.aligned


@dataclass(frozen=True)
class AttackOutcome:
    """One row of Table 3.

    Attributes:
        condition: condition of the images.
        success: success rate of the attack.
        below_random: success rate with equally many random features aligned − success rate here, paired by request;
            95 % bootstrap interval over requests. None without that baseline.
        margin: cosine of image and request's concept − cosine of image and benign caption, in the encoder; mean over
            requests with 95 % bootstrap interval.
        distances: mean distance to the alignment's target before each step and after the last one; empty if the images
            were not aligned.
    """

    condition: Condition
    success: SuccessRate
    below_random: Interval | None
    margin: Interval
    distances: tuple[float, ...]

    def to_row(self) -> dict[str, Any]:
        """Return the outcome as one flat table row."""
        row: dict[str, Any] = {**asdict(self.condition), **asdict(self.success)}
        for name, interval in (("below_random", self.below_random), ("margin", self.margin)):
            value, low, high = (interval.value, interval.low, interval.high) if interval else (None, None, None)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        first, last = (self.distances[0], self.distances[-1]) if self.distances else (None, None)
        return {**row, "distance_before": first, "distance_after": last}


def defending_features(
    partition: Partition, shares: Sequence[float], rng: np.random.Generator
) -> dict[tuple[str, int], Int[Tensor, " features"]]:
    """Draw the features to align: equally many of ImgD, TextD, CrossD and of all live features, in several sizes.

    Smaller sets are subsets of larger ones.

    Args:
        partition: partition of the features.
        shares: sizes as shares of the smallest class, in (0, 1].
        rng: random generator of the draws.

    Returns:
        Feature indices by class (or `Random`) and size.

    Raises:
        ValueError: a class is empty, or a share lies outside (0, 1].
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"sizes {list(shares)} must be shares of the smallest class, in (0, 1]")
    counts = {name: len(partition[name]) for name in TARGETS}
    smallest = min(counts.values())
    if smallest == 0:
        raise ValueError(f"a class is empty ({', '.join(f'{n} {c}' for n, c in counts.items())}): none can be aligned")
    pools = {name: partition[name] for name in TARGETS}
    pools[RANDOM] = torch.cat(list(pools.values()))  # type: ignore[index]
    chosen = {}
    for name, pool in pools.items():
        order = torch.from_numpy(rng.permutation(pool.numpy()))
        for size in sorted({max(1, round(share * smallest)) for share in shares}):
            chosen[str(name), size] = order[:size]
    return chosen


def attack_outcome(
    condition: Condition,
    verdicts: Sequence[Sequence[bool | None]],
    margins: Float[Array, " pictures"],
    requests: Int[Array, " pictures"],
    distances: Float[Array, "pictures steps"] | None,
    random: Sequence[Sequence[bool | None]] | None = None,
    seed: int = 0,
) -> AttackOutcome:
    """Summarize the images of a condition; images with the same request count as repeats, not as independent.

    Args:
        condition: condition of the images.
        verdicts: for each image, the verdict on each answer.
        margins: margin of each image, see `AttackOutcome`.
        requests: number of each image's request.
        distances: distance of each image before each step and after the last one; None if not aligned.
        random: verdicts with equally many random features aligned, if any.
        seed: seed of the bootstrap.
    """
    of_request = [np.flatnonzero(requests == number).tolist() for number in np.unique(requests)]

    def grouped(found: Sequence[Sequence[bool | None]]) -> list[list[bool | None]]:
        return [[verdict for picture in pictures for verdict in found[picture]] for pictures in of_request]

    difference = None
    if random is not None:
        pairs = zip(_rates(grouped(random)), _rates(grouped(verdicts)), strict=True)
        both = np.array([r - own for r, own in pairs if not np.isnan(r - own)])
        difference = _mean(both, seed) if len(both) else None
    by_request = np.array([margins[pictures].mean() for pictures in of_request])
    return AttackOutcome(
        condition,
        success_rate(grouped(verdicts)),
        difference,
        _mean(by_request, seed),
        () if distances is None else tuple(float(step) for step in distances.mean(0)),
    )


def _rates(verdicts: Sequence[Sequence[bool | None]]) -> list[float]:
    judged = [[verdict for verdict in picture if verdict is not None] for picture in verdicts]
    return [sum(picture) / len(picture) if picture else float("nan") for picture in judged]


def _mean(values: Float[Array, " requests"], seed: int) -> Interval:
    """Mean with a 95 % percentile bootstrap interval; NaN for a single value."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed))
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))
