"""What still works between the modalities when some features are gone: one outcome for each set of features removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mmmono.core.finite import unit_rows
from mmmono.features.effective_rank import paired_effective_rank
from mmmono.features.pair_retrieval import PairRetrieval, Retrieved
from mmmono.features.removal import Composition, PairedCompositions
from mmmono.features.retrieval import TIE, found_among
from mmmono.modality.random_sets import Activity

Array = np.ndarray[Any, Any]
KS = (1, 5, 10)


@dataclass(frozen=True)
class SampleMeasure:
    """A measure that is a mean over samples.

    Attributes:
        values: value of each sample; their mean is the measure.
        groups: group of each sample; samples of one group are not independent.
    """

    values: Float64[Tensor, " samples"]
    groups: Int64[Tensor, " samples"]

    @property
    def mean(self) -> float:
        """The measure."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Gap:
    """Modality gap ‖mean(u_img) − mean(u_txt)‖ of unit vectors (Liang et al. 2022), of these pairs.

    As the length of a vector it is larger than that of all pairs, the more so the fewer groups there are; of pairs without
    a gap it is not 0 but about as large as its own error by chance. An interval of it is around the gap of these pairs.

    Attributes:
        value: the gap.
        without: the gap without each group of pairs, for intervals by jackknife.
    """

    value: float
    without: Float64[Tensor, " groups"]


@dataclass(frozen=True)
class Outcome:
    """What works without some features.

    Attributes:
        samples: measures that are means over samples: `r1`, `r5`, `r10` (R@k, mean of both ways), `i2t_r1` to `t2i_r10`,
            `contrastive_loss` and, with labels, `zero_shot`.
        gap: see `gap_without_groups`; None if no pair is left.
        effective_rank: of both sides together, see `paired_effective_rank`; None if it was not asked for.
    """

    samples: Mapping[str, SampleMeasure]
    gap: Gap | None
    effective_rank: float | None = None

    def number(self, measure: str) -> float | None:
        """Value of a measure by name; None if it was not, or cannot be, measured."""
        if measure == "gap":
            return self.gap.value if self.gap is not None else None
        if measure == "effective_rank":
            return self.effective_rank
        return self.samples[measure].mean if measure in self.samples else None


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot classification of the pairs' images.

    Attributes:
        classes: the classes' texts, as sums of the same features.
        target: class of each pair; −1 for none.
    """

    classes: Composition
    target: Int64[Tensor, " pairs"]

    def hits(
        self, image: Float64[Tensor, "pairs dim"], removed: Int64[Tensor, " removed"]
    ) -> Float64[Tensor, " known"]:
        """For each pair with a class: 1 if that is the most similar one, 1/n if n tie for the first place, else 0."""
        known = self.target >= 0
        similarity = unit_rows(image[known]) @ unit_rows(self.classes.without(removed)).T
        own = similarity.gather(1, self.target[known][:, None])
        above = (similarity > own + TIE).sum(1).double()
        wrongs = ((similarity - own).abs() <= TIE).sum(1).double() - 1
        return found_among(wrongs, torch.ones_like(wrongs), (1 - above).clamp_min(0))


class RemovalBench:
    """Measures the same pairs again and again, each time without other features.

    Args:
        pairs: both sides of the pairs, as sums of features.
        groups: group of each pair; default: each pair is a group.
        zero_shot: classes and labels; None: not measured.
        temperature: of the contrastive loss.

    Raises:
        ValueError: numbers of pairs differ, or the temperature is below 0.005.
    """

    def __init__(
        self,
        pairs: PairedCompositions,
        groups: Array | None = None,
        zero_shot: ZeroShot | None = None,
        temperature: float = 0.07,
    ) -> None:
        self.pairs, self.zero_shot, self.temperature = pairs, zero_shot, temperature
        self.retrieval = PairRetrieval(pairs.image.vectors, pairs.text.vectors, groups)

    def activity(self) -> Activity:
        """Mean activity of the features over both modalities; their energy is that of what they add to the vectors."""
        image, text = (Activity.of([side.codes]).through(side.atoms) for side in (self.pairs.image, self.pairs.text))
        return image + text

    @property
    def features(self) -> int:
        """Number of features."""
        return self.pairs.features

    def retrieved(self, removed: Int64[Tensor, " removed"]) -> Retrieved:
        """Retrieval alone, without some features."""
        return self.retrieval.measure(self.pairs.without(removed).cosines)

    def outcome(self, removed: Int64[Tensor, " removed"], whole: bool = True) -> Outcome:
        """Measure everything without some features.

        Args:
            removed: indices of the features, each once.
            whole: also measure the effective rank, which takes longer than all the rest.
        """
        left = self.pairs.without(removed)
        found = self.retrieval.measure(left.cosines)
        ways = {"i2t": found.image_to_text, "t2i": found.text_to_image}
        samples = {f"r{k}": SampleMeasure(found.recall(k), found.groups) for k in KS}
        samples |= {
            f"{way}_r{k}": SampleMeasure(ranking.hits(k), ranking.groups) for way, ranking in ways.items() for k in KS
        }
        groups = self.retrieval.groups
        samples["contrastive_loss"] = SampleMeasure(self.retrieval.losses(left.cosines, self.temperature), groups)
        if self.zero_shot is not None:
            hits = self.zero_shot.hits(left.image, removed)
            samples["zero_shot"] = SampleMeasure(hits, groups[self.zero_shot.target >= 0])
        rank = paired_effective_rank(left.image, left.text) if whole else None
        return Outcome(samples, gap_without_groups(left.image, left.text, groups), rank)


def gap_without_groups(
    image: Float64[Tensor, "pairs dim"], text: Float64[Tensor, "pairs dim"], groups: Int64[Tensor, " pairs"]
) -> Gap | None:
    """Return the modality gap of all pairs, and of the pairs outside each group.

    Pairs of which a side has length 0, and therefore no direction, are left out. None if no pair is left.

    Args:
        image, text: vectors of the pairs.
        groups: group of each pair.
    """
    codes, count = torch.unique(groups, return_inverse=True)[1], len(torch.unique(groups))
    alive = (image != 0).any(1) & (text != 0).any(1)
    if not bool(alive.any()):
        return None
    difference = unit_rows(image[alive]) - unit_rows(text[alive])
    sums = torch.zeros(count, difference.shape[1], dtype=torch.float64).index_add_(0, codes[alive], difference)
    left = len(difference) - torch.bincount(codes[alive], minlength=count)
    without = torch.where(left > 0, (difference.sum(0) - sums).norm(dim=1) / left.clamp_min(1), torch.nan)
    return Gap(float(difference.mean(0).norm()), without)
