"""Would other pairs put a feature in the same class? Class probabilities, and a test of R(d) against the class's border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from scipy.stats import t as student
from torch import Tensor

from mmmono.core.finite import check_mask
from mmmono.core.ranges import check_number
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.intervals import effective_trials, error_freedom
from mmmono.modality.partition import LIVE_CLASSES, Partition
from mmmono.modality.scores import DominanceScores

Classify = Callable[[Tensor, Tensor], Partition]  # the rule, called with scores and the mask of live features


@dataclass(frozen=True)
class ClassCertainty:
    """How certain the class of each feature is.

    Attributes:
        probabilities: share of the bootstrap resamples, with borders redrawn on each, in which a feature is ImgD, TextD and
            CrossD; they sum to 1 for live features and are NaN for the others. Resampling adds noise to the scores, which
            widens redrawn borders at μ ± σ a little.
        border_p_value: p-value of the null that R(d) lies between the borders or on one; NaN unless live.
        border_q_value: the same, adjusted for the false discovery rate over live features (Benjamini and Hochberg 1995).
        border_error: standard error of the distance between R(d) and the border that it is tested against.
    """

    probabilities: Float64[Tensor, "3 features"]
    border_p_value: Float64[Tensor, " features"]
    border_q_value: Float64[Tensor, " features"]
    border_error: Float64[Tensor, " features"]

    def confirmed(self, fdr: float) -> Bool[Tensor, " features"]:
        """Mask of the features that lie beyond a border at a false discovery rate."""
        check_number("fdr", fdr, least=0, most=1)
        return self.border_q_value <= fdr


def class_certainty(
    dominance: DominanceScores,
    bootstrap: Float64[Tensor, "n_bootstrap features"],
    classify: Classify,
    live: Bool[Tensor, " features"],
) -> ClassCertainty:
    """Redo the partition on bootstrap resamples, and test each score against the borders of the classes.

    The test is z = (R − border) / s beyond the upper border, and mirrored beyond the lower one. s is the standard deviation
    of this distance over resamples, in which the border moves too, but at least that of a share with the border's
    probability (as in a score test), since resamples of a feature that one modality always wins are all alike.

    The null is an interval (Hodges and Lehmann 1954). From its least favourable point, the nearer border, a score may land
    as far beyond either one: the p-value is the sum of both tails, P(T ≥ z) + P(T ≥ (d + width) / s') for a score d beyond
    the nearer border, with the s' of the other one. It is one-sided where the borders are far apart, and two-sided where
    they coincide. T is normal, or Student's t where groups differ in size (`error_freedom`).

    Args:
        dominance: scores of Eq. 1, by group.
        bootstrap: R(d) on resamples of the groups (`resample_dominance`).
        classify: the partition rule of scores and live features, such as
            `lambda scores, live: partition_by_sigma(scores, live=live)`.
        live: mask of the features that are classified.

    Raises:
        TypeError: `live` is no tensor.
        ValueError: `live` is no mask of these features, or the resamples are of others.
    """
    check_mask(live, "live", len(dominance.scores))
    if bootstrap.ndim != 2 or bootstrap.shape[1] != len(live):
        raise ValueError(f"resamples [n_bootstrap, {len(live)}] expected, got {tuple(bootstrap.shape)}")
    counts = torch.zeros(len(LIVE_CLASSES), bootstrap.shape[1], dtype=torch.float64)
    borders = torch.empty(2, len(bootstrap), dtype=torch.float64)
    for i, scores in enumerate(bootstrap):
        partition = classify(scores, live)
        borders[:, i] = torch.tensor([partition.low, partition.high])
        for row, name in zip(counts, LIVE_CLASSES, strict=True):
            row[partition[name]] += 1
    probabilities = torch.where(live, counts / counts.sum(0), torch.nan)
    now = classify(dominance.scores, live)
    trials = effective_trials(dominance)
    beyond = torch.stack([now.low - dominance.scores, dominance.scores - now.high])  # > 0: beyond the border
    errors = torch.stack(
        [
            _error(bootstrap - moved[:, None], border, trials)
            for moved, border in zip(borders, (now.low, now.high), strict=True)
        ]
    )
    z = (beyond / errors).nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    side = z.argmax(0, keepdim=True)
    across = ((beyond + (now.high - now.low)) / errors.flip(0)).nan_to_num(torch.inf, posinf=torch.inf)
    freedom = error_freedom(dominance).numpy()
    tails = sum(student.sf(of.gather(0, side)[0].numpy(), freedom) for of in (z, across))
    p_value = torch.where(live, torch.from_numpy(tails).clamp(max=1.0), torch.nan)
    return ClassCertainty(probabilities, p_value, q_values(p_value), errors.gather(0, side)[0])


def _error(distances: Tensor, border: float, trials: Tensor) -> Tensor:
    known = ~distances.isnan()
    count = known.sum(0)
    mean = distances.nan_to_num(0).sum(0) / count
    moved = ((distances - mean).nan_to_num(0).square().sum(0) / (count - 1)).sqrt()
    share = min(max(border, 0.0), 1.0)
    return moved.fmax((share * (1 - share) / trials).sqrt())
