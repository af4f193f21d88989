"""Outcome of the attack under each defense: the rows of Table 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mmmono.case_studies.adversarial.success import Crossing, SuccessRate, Verdicts, success_rate
from mmmono.core.statistics import Estimate, Interval
from mmmono.modality import LIVE_CLASSES, Partition
from mmmono.modality.random_sets import Activity, Match, RandomSet, random_name, random_pool, random_set

Array = np.ndarray[Any, Any]
ALL = "All"
BENIGN, CONTRAST, ATTACKED = "benign", "contrast", "attacked"


@dataclass(frozen=True)
class Condition:
    """Condition of the images that the victim sees.

    Attributes:
        aligned: class of features that the defense aligned, `Random` ones, with the class that they are like
            (`random_name`), or `All`; without a defense, `benign`, `contrast`
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
class Carried:
    """What the features carry that a defense aligns.

    Attributes:
        energy: their share of Σ z² over images, mean over runs.
        mismatch: largest mismatch of random features over runs, see `RandomSet`; None for a class.
        share: share of the smallest class that so many features are, as it was asked for; None for all features.
    """

    energy: float
    mismatch: float | None
    share: float | None = None


@dataclass(frozen=True)
class AttackOutcome:
    """One row of Table 3.

    Attributes:
        condition: condition of the images.
        success: success rate of the attack.
        below_random: success rate with random features like these aligned − success rate here, paired by case, over
            requests and benign images as crossed factors. None without that baseline.
        margin: cosine of image and request's concept − cosine of image and benign caption, in the encoder; mean with 95 %
            interval over requests and benign images.
        distances: mean distance to the alignment's target before each step and after the last one; empty if the images
            were not aligned.
        aligned: what the aligned features carry; None if there are none.
    """

    condition: Condition
    success: SuccessRate
    below_random: Estimate | None
    margin: Interval
    distances: tuple[float, ...]
    aligned: Carried | None = None

    def to_row(self, p_holm: float | None = None) -> dict[str, Any]:
        """Return the outcome as one flat table row; what it lacks is None or NaN.

        Args:
            p_holm: p-value of `below_random` being 0, adjusted for all comparisons.
        """
        first, last = (self.distances[0], self.distances[-1]) if self.distances else (None, None)
        below = self.below_random or Estimate(float("nan"))
        return {
            **asdict(self.condition),
            "share": self.aligned.share if self.aligned else None,
            "energy": self.aligned.energy if self.aligned else None,
            "mismatch": self.aligned.mismatch if self.aligned else None,
            "requests": self.success.requests, "images": self.success.images, "trials": self.success.trials,
            "successes": self.success.successes, "unparseable": self.success.unparseable,
            **self.success.rate.columns("rate"),
            **below.interval().columns("below_random"), "p": below.p_value, "p_holm": p_holm,
            "equivalence": below.equivalence_bound(), "detectable": below.detectable(),
            **self.margin.columns("margin"), "distance_before": first, "distance_after": last,
        }  # fmt: skip

    def distance_rows(self) -> list[dict[str, Any]]:
        """Return the distances as table rows, one per step; none if the images were not aligned."""
        condition = asdict(self.condition)
        return [{**condition, "step": step, "distance": value} for step, value in enumerate(self.distances)]


def defending_features(
    partition: Partition,
    shares: Sequence[float],
    rng: np.random.Generator,
    activity: Activity,
    match: Match = "energy",
) -> dict[tuple[str, int], RandomSet]:
    """Draw the features to align: equally many of ImgD, TextD, CrossD, and random ones like these, in several sizes.

    Smaller sets of a class are subsets of larger ones.

    Args:
        partition: partition of the features.
        shares: sizes as shares of the smallest class, in (0, 1].
        rng: random generator of the draws.
        activity: activity of the features on images.
        match: what random sets share with the drawn features of a class besides their number.

    Returns:
        Features by class (or `random_name`) and size; the mismatch of those of a class is 0.

    Raises:
        ValueError: a class is empty, or a share lies outside (0, 1].
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"sizes {list(shares)} must be shares of the smallest class, in (0, 1]")
    sizes, weights = sorted(shares_of_sizes(partition, shares)), activity.weights(match)
    chosen: dict[tuple[str, int], RandomSet] = {}
    for name in LIVE_CLASSES:
        order = rng.permutation(partition[name].numpy())
        chosen |= {(str(name), size): RandomSet(order[:size], 0.0) for size in sizes}
    for name in LIVE_CLASSES:
        for size in sizes:
            pool = random_pool(partition, name, size, match)
            like = chosen[str(name), size].members
            chosen.setdefault((random_name(match, name), size), random_set(pool, like, weights, rng))
    return chosen


def shares_of_sizes(partition: Partition, shares: Sequence[float]) -> dict[int, float]:
    """Numbers of features, each with the largest of the shares of the smallest class that it is.

    Raises:
        ValueError: a class is empty.
    """
    counts = {name: len(partition[name]) for name in LIVE_CLASSES}
    smallest = min(counts.values())
    if smallest == 0:
        raise ValueError(f"a class is empty ({', '.join(f'{n} {c}' for n, c in counts.items())}): none can be aligned")
    return {max(1, round(share * smallest)): share for share in sorted(shares)}


@dataclass(frozen=True)
class Observations:
    """What was seen of the images of one condition, image by image.

    Attributes:
        crossing: request and benign image of each image.
        verdicts: for each image, the verdict on each answer; None for an answer without a verdict.
        margins: margin of each image, see `AttackOutcome`.
        distances: distance of each image before each step and after the last one; None if not aligned.
    """

    crossing: Crossing
    verdicts: Verdicts
    margins: Float[Array, " images"]
    distances: Float[Array, "images steps"] | None


def attack_outcome(
    condition: Condition, seen: Observations, random: Verdicts | None = None, aligned: Carried | None = None
) -> AttackOutcome:
    """Summarize the images of a condition; those with one request, or one benign image, are not independent.

    Args:
        condition: condition of the images.
        seen: requests, verdicts, margins and distances of the images.
        random: verdicts on the same images with random features like these aligned, if any.
        aligned: what the aligned features carry, if any.
    """
    difference = None
    if random is not None:
        below = _rates(random) - _rates(seen.verdicts)
        if len(judged := np.flatnonzero(~np.isnan(below))):
            difference = seen.crossing.mean(below).of_outcomes(seen.crossing.pairs(judged))
    return AttackOutcome(
        condition,
        success_rate(seen.verdicts, seen.crossing),
        difference,
        seen.crossing.mean(seen.margins).interval(),
        () if seen.distances is None else tuple(float(step) for step in seen.distances.mean(0)),
        aligned,
    )


def _rates(verdicts: Verdicts) -> Float[Array, " images"]:
    judged = [[verdict for verdict in image if verdict is not None] for image in verdicts]
    return np.array([sum(image) / len(image) if image else float("nan") for image in judged])
