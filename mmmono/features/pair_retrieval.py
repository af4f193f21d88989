"""Retrieval between the sides of pairs, query by query, from one matrix of cosines in one pass over its blocks.

`mmmono.features.retrieval` measures two sets of vectors once. Here the pairs stay the same and the cosines change many
times, so that what depends on the pairs alone is prepared, and every query keeps its own outcome for intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.features.retrieval import TIE, distinct_rows, found_among

Array = np.ndarray[Any, Any]
BLOCK_ROWS = 96  # rows whose cosines are compared at once: few enough for a core's cache
LEAST_TEMPERATURE = 0.005  # below it, exp((cosine − 1) / temperature) leaves the range of float64


@dataclass(frozen=True)
class Ranking:
    """Where the queries of one way find what is right.

    Attributes:
        above: number of targets more similar than the best right one.
        wrongs, rights: number of wrong and of right targets that are as similar as it.
        groups: group of each query.
    """

    above: Float64[Tensor, " queries"]
    wrongs: Float64[Tensor, " queries"]
    rights: Float64[Tensor, " queries"]
    groups: Int64[Tensor, " queries"]

    def hits(self, k: int) -> Float64[Tensor, " queries"]:
        """R@k of each query: 1 or 0, or the probability of a right target among the first k if targets tie."""
        return found_among(self.wrongs, self.rights, (k - self.above).clamp_min(0))

    def reciprocal(self) -> Float64[Tensor, " queries"]:
        """One over the rank of the first right target; ties count with its expected rank in a random order."""
        return 1 / (1 + self.above + self.wrongs / (self.rights + 1))


@dataclass(frozen=True)
class Retrieved:
    """Outcome of retrieval between the sides of pairs.

    Attributes:
        image_to_text, text_to_image: both ways.
    """

    image_to_text: Ranking
    text_to_image: Ranking

    @property
    def groups(self) -> Int64[Tensor, " queries"]:
        """Groups of the images, then of the texts that are queries."""
        return torch.cat([self.image_to_text.groups, self.text_to_image.groups])

    def both(self, hits: tuple[Tensor, Tensor]) -> Float64[Tensor, " queries"]:
        """Values of images, then of texts, weighted so that their mean is the mean of both ways' means."""
        count = sum(map(len, hits))
        return torch.cat([values * (count / (2 * len(values))) for values in hits])

    def recall(self, k: int) -> Float64[Tensor, " queries"]:
        """R@k of both ways, query by query; see `both`."""
        return self.both((self.image_to_text.hits(k), self.text_to_image.hits(k)))

    def reciprocal(self) -> Float64[Tensor, " queries"]:
        """Reciprocal ranks of both ways, query by query; see `both`."""
        return self.both((self.image_to_text.reciprocal(), self.text_to_image.reciprocal()))


class PairRetrieval:
    """Measures retrieval between the sides of the same pairs for many matrices of cosines.

    Any target of the query's group is right. Rows of a side that are equal and of one group count once, as in
    `recall_at_k`; which these are is decided once, on `image` and `text`.

    Args:
        image, text: vectors of the pairs with all features.
        groups: group of each pair; default: each pair is a group.

    Raises:
        ValueError: there are no pairs, or numbers differ.
    """

    def __init__(
        self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"], groups: Array | None = None
    ) -> None:
        groups = np.arange(len(image)) if groups is None else np.asarray(groups)
        if not len(image) == len(text) == len(groups) or not len(groups):
            raise ValueError(
                f"{len(image)} images, {len(text)} texts and {len(groups)} groups: give as many, at least one"
            )
        self.groups = torch.from_numpy(groups.astype(np.int64))
        self.images, self.texts = distinct_rows(image, groups), distinct_rows(text, groups)
        self._whole = len(self.images) == len(self.texts) == len(groups)
        self._of_images, self._of_texts = self.groups[self.images], self.groups[self.texts]
        self._right = _equal_pairs(self._of_images.numpy(), self._of_texts.numpy())

    def measure(self, cosines: Float64[Tensor, "pairs pairs"]) -> Retrieved:
        """Rank the targets of every query.

        Args:
            cosines: of all images (rows) with all texts.
        """
        among = cosines if self._whole else cosines[self.images][:, self.texts]
        rows, columns = self._right
        right = among[rows, columns]
        best = [_largest(right, of, count) for of, count in zip(self._right, among.shape, strict=True)]
        above, reach = (
            (torch.zeros(among.shape[0]), torch.zeros(among.shape[1])) for _ in range(2)
        )  # float32 counts are exact below 2²⁴
        for start in range(0, len(among), BLOCK_ROWS):
            block = among[start : start + BLOCK_ROWS]
            mine = best[0][start : start + BLOCK_ROWS, None]
            for counts, shift in ((above, TIE), (reach, -TIE)):
                # Bytes are summed several times faster than truth values.
                counts[0][start : start + BLOCK_ROWS] = (
                    (block > mine + shift).view(torch.uint8).sum(1, dtype=torch.int32)
                )
                counts[1].add_((block > best[1] + shift).view(torch.uint8).sum(0, dtype=torch.int32))
        rankings = []
        for way, (of, own) in enumerate(zip(self._right, (self._of_images, self._of_texts), strict=True)):
            tied = torch.zeros(len(own), dtype=torch.float64)
            tied.index_add_(0, of, (right > best[way][of] - TIE).double())
            wrongs = reach[way].double() - above[way].double() - tied
            rankings.append(Ranking(above[way].double(), wrongs.clamp_min(0), tied, own))
        return Retrieved(*rankings)

    def chance(self, k: int) -> float:
        """R@k, mean of both ways, of targets in a random order: more than k / targets where groups have several pairs."""
        equal = torch.zeros(len(self.groups), len(self.groups), dtype=torch.float64)
        return float(self.measure(equal).recall(k).mean())

    def losses(self, cosines: Float64[Tensor, "pairs pairs"], temperature: float) -> Float64[Tensor, " pairs"]:
        """CLIP's loss of each pair in nats, the mean of both ways, with all other pairs as negatives; see `clip_loss`.

        Raises:
            ValueError: the temperature is below 0.005.
        """
        if temperature < LEAST_TEMPERATURE:
            raise ValueError(f"temperature={temperature} must be at least {LEAST_TEMPERATURE}")
        rows, columns = torch.empty(len(cosines), dtype=torch.float64), torch.zeros(len(cosines), dtype=torch.float64)
        for start in range(0, len(cosines), BLOCK_ROWS):
            weights = cosines[start : start + BLOCK_ROWS].sub(1).mul_(1 / temperature).exp_()
            rows[start : start + BLOCK_ROWS] = weights.sum(1)
            columns += weights.sum(0)
        return (rows.log() + columns.log()) / 2 - (cosines.diagonal() - 1) / temperature


def _equal_pairs(left: Array, right: Array) -> tuple[Int64[Tensor, " equal"], Int64[Tensor, " equal"]]:
    """Positions (i, j) of all equal elements left[i] = right[j]."""
    order = np.argsort(right, kind="stable")
    first = np.searchsorted(right[order], left, "left")
    counts = np.searchsorted(right[order], left, "right") - first
    rows = np.repeat(np.arange(len(left)), counts)
    within = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    return torch.from_numpy(rows), torch.from_numpy(order[first[rows] + within])


def _largest(values: Tensor, of: Tensor, count: int) -> Tensor:
    """Largest of the values that belong to each of `count` queries."""
    return torch.full((count,), -torch.inf, dtype=values.dtype).scatter_reduce_(0, of, values, "amax")
