"""Partition of features into ImgD, TextD and CrossD by their modality dominance score (Section 2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mmmono.core.finite import check_tensor, double
from mmmono.core.ranges import check_number, check_whole

FeatureClass = Literal["ImgD", "TextD", "CrossD", "dead"]
LIVE_CLASSES: tuple[FeatureClass, ...] = ("ImgD", "TextD", "CrossD")
CLASSES: tuple[FeatureClass, ...] = (*LIVE_CLASSES, "dead")
ROUNDING = 1e-12  # tolerance for float64 rounding errors: scores this close to a threshold count as equal to it


@dataclass(frozen=True)
class Partition:
    """Ascending feature indices of each class; the classes are disjoint and cover all features.

    Attributes:
        image_dominant: indices of ImgD.
        text_dominant: indices of TextD.
        cross_modal: indices of CrossD.
        dead: indices of features that are not classified, because too few pairs activate them.
        low, high: the borders: TextD lies below `low`, ImgD above `high`. NaN if the classes did not come from scores.
    """

    image_dominant: Int64[Tensor, " img_d"]
    text_dominant: Int64[Tensor, " text_d"]
    cross_modal: Int64[Tensor, " cross_d"]
    dead: Int64[Tensor, " dead"]
    low: float = field(default=math.nan, kw_only=True)
    high: float = field(default=math.nan, kw_only=True)

    def __post_init__(self) -> None:
        for name in CLASSES:
            check_tensor(self[name], name)
        everything = torch.cat([self[name] for name in CLASSES])
        if not torch.equal(everything.sort().values, torch.arange(len(everything))):
            raise ValueError("a partition's classes must be disjoint and cover all features from 0 on")

    def __getitem__(self, name: FeatureClass) -> Int64[Tensor, " members"]:
        by_name = {
            "ImgD": self.image_dominant, "TextD": self.text_dominant, "CrossD": self.cross_modal, "dead": self.dead
        }  # fmt: skip
        return by_name[name]

    def __len__(self) -> int:
        return sum(len(self[name]) for name in CLASSES)

    @property
    def live(self) -> Int64[Tensor, " live"]:
        """Ascending indices of the features that are classified: all but the dead."""
        return torch.cat([self[name] for name in LIVE_CLASSES]).sort().values

    @property
    def is_live(self) -> Bool[Tensor, " features"]:
        """Mask of the features that are classified."""
        mask = torch.ones(len(self), dtype=torch.bool)
        mask[self.dead] = False
        return mask

    @property
    def unreachable(self) -> tuple[FeatureClass, ...]:
        """Classes that no score can be in, since R(d) lies between 0 and 1, and their border does not.

        With borders at μ ± σ it happens where most scores lie at one end.
        """
        if not len(self.live):
            return ()
        beyond: dict[FeatureClass, bool] = {
            "ImgD": 1 - ROUNDING <= self.high < math.inf, "TextD": -math.inf < self.low <= ROUNDING,
        }  # fmt: skip
        return tuple(name for name, empty in beyond.items() if empty)

    def class_of(self) -> list[FeatureClass]:
        """List the class of each feature, by feature index."""
        classes: list[FeatureClass] = ["dead"] * len(self)
        for name in CLASSES:
            for index in self[name].tolist():
                classes[index] = name
        return classes


def partition_by_sigma(
    scores: Float[Tensor, " features"],
    n_sigma: float = 1.0,
    live: Bool[Tensor, " features"] | None = None,
) -> Partition:
    """Partition by the paper's rule: ImgD if R(d) > μ + nσ, TextD if R(d) < μ − nσ, else CrossD (Section 2.1).

    Args:
        scores: R(d); NaN marks dead features.
        n_sigma: distance n of the thresholds from the mean, in (population) standard deviations of the live scores.
        live: mask of features to classify, besides a score that is not NaN; the others are dead. Default: all.

    Raises:
        ValueError: `n_sigma` is no number of at least 0, or scores and `live` are no list of the same features.
    """
    check_number("n_sigma", n_sigma, least=0)
    scores, alive = _live(scores, live)
    mean = scores[alive].mean() if alive.any() else scores.new_zeros(())
    sigma = scores[alive].std(correction=0) if alive.any() else scores.new_zeros(())
    return _beyond(scores, mean - n_sigma * sigma, mean + n_sigma * sigma, alive)


def partition_by_counts(
    scores: Float[Tensor, " features"],
    image_dominant: int,
    text_dominant: int,
    live: Bool[Tensor, " features"] | None = None,
) -> Partition:
    """Partition by class sizes: the highest scores are ImgD, the lowest TextD, the rest CrossD.

    The sizes in Table 1 are 426 ImgD, 554 TextD and 44 CrossD. A border lies in the middle between the scores on its two
    sides; an empty class has none.

    Args:
        scores: R(d); NaN marks dead features.
        image_dominant, text_dominant: number of features in ImgD and in TextD.
        live: see `partition_by_sigma`.

    Raises:
        ValueError: a size is negative, or both together exceed the number of live features.
    """
    check_whole("image_dominant", image_dominant, least=0)
    check_whole("text_dominant", text_dominant, least=0)
    scores, alive = _live(scores, live)
    if image_dominant + text_dominant > int(alive.sum()):
        raise ValueError(
            f"{image_dominant} ImgD + {text_dominant} TextD features asked for, but only {int(alive.sum())} are live"
        )
    order = torch.where(alive, scores, torch.inf).argsort(stable=True)[: int(alive.sum())]
    image, text = torch.zeros_like(alive), torch.zeros_like(alive)
    image[order[len(order) - image_dominant :]] = True
    text[order[:text_dominant]] = True
    ranked = torch.cat([scores.new_tensor([-torch.inf]), scores[order], scores.new_tensor([torch.inf])])
    low, high = (float(ranked[place : place + 2].mean()) for place in (text_dominant, len(order) - image_dominant))
    return _from_masks(image, text, alive, (low, high))


def partition_by_margin(
    scores: Float[Tensor, " features"],
    margin: float = 0.3,
    live: Bool[Tensor, " features"] | None = None,
) -> Partition:
    """Partition by fixed thresholds: ImgD if R(d) > ½ + margin, TextD if R(d) < ½ − margin, else CrossD.

    Unlike μ ± σ, the thresholds do not depend on the other features. R(d) = 0.8 (margin 0.3) corresponds to an image
    activation that is four times the text activation.

    Args:
        scores: R(d); NaN marks dead features.
        margin: distance of the thresholds from ½.
        live: see `partition_by_sigma`.

    Raises:
        ValueError: `margin` is not in [0, ½).
    """
    check_number("margin", margin)
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin={margin} must lie in [0, 0.5): R(d) is at most 1")
    scores, alive = _live(scores, live)
    return _beyond(scores, 0.5 - margin, 0.5 + margin, alive)


def partition_by_null(
    scores: Float[Tensor, " features"],
    q_values: Float[Tensor, " features"],
    fdr: float = 0.05,
    live: Bool[Tensor, " features"] | None = None,
) -> Partition:
    """Partition by significance: ImgD if R(d) > ½ and q ≤ fdr, TextD if R(d) < ½ and q ≤ fdr, else CrossD.

    Args:
        scores: R(d); NaN marks dead features.
        q_values: q-values of the permutation null R(d) = ½; see `resample_dominance` and `sign_flip_p_values`.
        fdr: accepted false discovery rate among ImgD and TextD.
        live: see `partition_by_sigma`.

    Raises:
        ValueError: there is not one q-value for each score, or `fdr` is not in [0, 1].
    """
    check_number("fdr", fdr, least=0, most=1)
    scores, alive = _live(scores, live)
    check_tensor(q_values, "q_values")
    if q_values.shape != scores.shape:
        raise ValueError(f"{tuple(q_values.shape)} q-values for {tuple(scores.shape)} scores: give one for each")
    beyond = alive & (q_values <= fdr)
    return _from_masks(beyond & (scores > 0.5), beyond & (scores < 0.5), alive, (0.5, 0.5))


def _live(scores: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
    check_tensor(scores, "scores")
    scores = double(scores)
    if scores.isinf().any():
        raise ValueError("a score is infinite, but R(d) lies between 0 and 1: give NaN for features that have none")
    alive = ~torch.isnan(scores)
    if live is None:
        live = alive
    check_tensor(live, "live")
    if scores.ndim != 1 or live.shape != scores.shape or live.dtype != torch.bool:
        raise ValueError(
            f"scores [features] and a mask of as many features expected, got {tuple(scores.shape)} and {live.dtype} "
            f"{tuple(live.shape)}"
        )
    return scores, alive & live


def _beyond(scores: Tensor, low: Tensor | float, high: Tensor | float, alive: Tensor) -> Partition:
    image, text = alive & (scores > high + ROUNDING), alive & (scores < low - ROUNDING)
    return _from_masks(image, text, alive, (float(low), float(high)))


def _from_masks(image: Tensor, text: Tensor, alive: Tensor, borders: tuple[float, float]) -> Partition:
    image, text, cross, dead = (
        mask.nonzero().squeeze(1).cpu() for mask in (image, text, alive & ~image & ~text, ~alive)
    )
    return Partition(image, text, cross, dead, low=borders[0], high=borders[1])
