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
from mmmono.core.statistics import Interval
from mmmono.modality import LIVE_CLASSES, Partition

Array = np.ndarray[Any, Any]
Verdicts = Sequence[Sequence[bool | None]]  # for each image, the verdict on each answer
RANDOM, ALL = "Random", "All"
BENIGN, CONTRAST, ATTACKED = "benign", "contrast", "attacked"
METHOD = "percentile bootstrap"


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
        """Return the outcome as one flat table row; what it lacks is None or NaN."""
        first, last = (self.distances[0], self.distances[-1]) if self.distances else (None, None)
        below_random = self.below_random or Interval(float("nan"))
        return {
            **asdict(self.condition),
            "clusters": self.success.clusters, "trials": self.success.trials, "successes": self.success.successes,
            "unparseable": self.success.unparseable,
            **self.success.rate.columns("rate"),
            **below_random.columns("below_random"), **self.margin.columns("margin"),
            "distance_before": first, "distance_after": last,
        }  # fmt: skip

    def distance_rows(self) -> list[dict[str, Any]]:
        """Return the distances as table rows, one per step; none if the images were not aligned."""
        condition = asdict(self.condition)
        return [{**condition, "step": step, "distance": value} for step, value in enumerate(self.distances)]


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
    counts = {name: len(partition[name]) for name in LIVE_CLASSES}
    smallest = min(counts.values())
    if smallest == 0:
        raise ValueError(f"a class is empty ({', '.join(f'{n} {c}' for n, c in counts.items())}): none can be aligned")
    pools = {name: partition[name] for name in LIVE_CLASSES}
    pools[RANDOM] = torch.cat(list(pools.values()))  # type: ignore[index]
    chosen = {}
    for name, pool in pools.items():
        order = torch.from_numpy(rng.permutation(pool.numpy()))
        for size in sorted({max(1, round(share * smallest)) for share in shares}):
            chosen[str(name), size] = order[:size]
    return chosen


@dataclass(frozen=True)
class Observations:
    """What was seen of the images of one condition, image by image.

    Attributes:
        requests: number of each image's request.
        verdicts: for each image, the verdict on each answer; None for an answer without a verdict.
        margins: margin of each image, see `AttackOutcome`.
        distances: distance of each image before each step and after the last one; None if not aligned.
    """

    requests: Int[Array, " pictures"]
    verdicts: Verdicts
    margins: Float[Array, " pictures"]
    distances: Float[Array, "pictures steps"] | None


def attack_outcome(
    condition: Condition, seen: Observations, random: Verdicts | None = None, seed: int = 0
) -> AttackOutcome:
    """Summarize the images of a condition; images with the same request count as repeats, not as independent.

    Args:
        condition: condition of the images.
        seen: requests, verdicts, margins and distances of the images.
        random: verdicts on the same images with equally many random features aligned, if any.
        seed: seed of the bootstrap.
    """
    of_request = [np.flatnonzero(seen.requests == number).tolist() for number in np.unique(seen.requests)]

    def grouped(found: Verdicts) -> list[list[bool | None]]:
        return [[verdict for picture in pictures for verdict in found[picture]] for pictures in of_request]

    difference = None
    if random is not None:
        pairs = zip(_rates(grouped(random)), _rates(grouped(seen.verdicts)), strict=True)
        both = np.array([r - own for r, own in pairs if not np.isnan(r - own)])
        difference = _mean(both, seed) if len(both) else None
    by_request = np.array([seen.margins[pictures].mean() for pictures in of_request])
    return AttackOutcome(
        condition,
        success_rate(grouped(seen.verdicts)),
        difference,
        _mean(by_request, seed),
        () if seen.distances is None else tuple(float(step) for step in seen.distances.mean(0)),
    )


def _rates(verdicts: Verdicts) -> list[float]:
    judged = [[verdict for verdict in picture if verdict is not None] for picture in verdicts]
    return [sum(picture) / len(picture) if picture else float("nan") for picture in judged]


def _mean(values: Float[Array, " requests"], seed: int) -> Interval:
    """Mean with a 95 % percentile bootstrap interval; NaN for a single value."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, method=METHOD)
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed))
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high), method=METHOD)
