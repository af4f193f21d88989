"""Results of Section 3.2 for one feature set: monosemanticity on each modality, by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mmmono.features.store import MODALITIES, Modality
from mmmono.interpretability.monosemanticity import embsim, winrate
from mmmono.interpretability.top_samples import TopSamples
from mmmono.modality import LIVE_CLASSES, FeatureClass, Partition

Lookup = Callable[[Int64[Tensor, " rows"]], Float[Tensor, "rows dim"]]

METRICS = ("mono", "embsim", "winrate", "embsim_pooled", "ms")
CLASS_ROWS: tuple[FeatureClass | None, ...] = (None, *LIVE_CLASSES)  # None: all live features
CHUNK_FEATURES = 256  # features scored at a time; limits the memory for their samples' embeddings


@dataclass(frozen=True)
class Estimate:
    """Mean over features with its standard error.

    Attributes:
        mean: mean; NaN without features.
        error: standard error over features; NaN for fewer than two.
        count: number of features.
    """

    mean: float
    error: float
    count: int

    @classmethod
    def of(cls, values: Float[Tensor, " features"]) -> Estimate:
        """Estimate the mean of the values that are not NaN."""
        values = values[~values.isnan()].double()
        count = len(values)
        mean = float(values.mean()) if count else float("nan")
        error = float(values.std() / count**0.5) if count > 1 else float("nan")
        return cls(mean, error, count)

    def __sub__(self, other: Estimate) -> Estimate:
        """Difference of two independent means; `count` is the smaller of both."""
        return Estimate(self.mean - other.mean, (self.error**2 + other.error**2) ** 0.5, min(self.count, other.count))


@dataclass(frozen=True)
class Monosemanticity:
    """Scores of every feature on one modality; NaN for features with fewer than m positive samples.

    Attributes:
        embsim: EmbSim as printed in Eq. 5, averaged over draws of the random samples.
        embsim_pooled: EmbSim as ratio of means, see `embsim`.
        winrate: WinRate of Eq. 5.
        mono: Mono, the mean of embsim and winrate.
        ms: MS of Pach et al. 2025 over all samples; NaN if undefined or not computed.
        draw_error: standard error, due to the random draws, of the mean of mono over features.
    """

    embsim: Float64[Tensor, " features"]
    embsim_pooled: Float64[Tensor, " features"]
    winrate: Float64[Tensor, " features"]
    mono: Float64[Tensor, " features"]
    ms: Float64[Tensor, " features"]
    draw_error: float


def random_rows(
    population: Int64[Tensor, " pool"], features: int, m: int, draws: int, seed: int
) -> Int64[Tensor, "draws features m"]:
    """Draw m distinct samples of a population for every draw and feature.

    Args:
        population: rows to draw from.
        features: number of features.
        m: samples per feature.
        draws: number of independent draws.
        seed: seed of the draws.

    Raises:
        ValueError: the population is smaller than m.
    """
    if m > len(population):
        raise ValueError(f"m={m} samples asked for out of {len(population)}")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(draws, features, m, dtype=torch.int64)
    for draw in range(draws):
        for start in range(0, features, 1024):
            shuffled = torch.rand(min(1024, features - start), len(population), generator=generator)
            rows[draw, start : start + 1024] = population[shuffled.topk(m, dim=1).indices]
    return rows


def monosemanticity(
    top: TopSamples,
    random: Int64[Tensor, "draws features m"],
    embed: Lookup,
    ms: Float64[Tensor, " features"] | None = None,
) -> Monosemanticity:
    """Compute EmbSim, WinRate and Mono (Eq. 5) of all features on one modality.

    Args:
        top: the m most activating samples of each feature.
        random: rows of m random samples for every draw and feature.
        embed: returns the embeddings of rows, as unit vectors.
        ms: MS of each feature, if computed.
    """
    features, m = top.rows.shape
    enough = top.found == m
    scores = torch.full((3, len(random), features), torch.nan, dtype=torch.float64)
    for chunk in enough.nonzero().squeeze(1).split(CHUNK_FEATURES):
        active = embed(top.rows[chunk].flatten()).unflatten(0, (len(chunk), m))
        for draw, rows in enumerate(random):
            baseline = embed(rows[chunk].flatten()).unflatten(0, (len(chunk), m))
            scores[0, draw, chunk] = embsim(active, baseline)
            scores[1, draw, chunk] = embsim(active, baseline, form="pooled")
            scores[2, draw, chunk] = winrate(active, baseline)
    mono = (scores[0] + scores[2]) / 2
    by_draw = mono[:, enough].mean(1)
    means = scores.mean(1)
    return Monosemanticity(
        embsim=means[0],
        embsim_pooled=means[1],
        winrate=means[2],
        mono=mono.mean(0),
        ms=torch.full((features,), torch.nan, dtype=torch.float64) if ms is None else ms,
        draw_error=float(by_draw.std() / len(random) ** 0.5) if len(random) > 1 else float("nan"),
    )


@dataclass(frozen=True)
class FeatureSetInterpretability:
    """Monosemanticity of one feature set on images and on texts, with its partition."""

    name: str
    partition: Partition
    image: Monosemanticity
    text: Monosemanticity

    def of(self, modality: Modality) -> Monosemanticity:
        """Return the scores on one modality."""
        return self.image if modality == "image" else self.text

    def estimate(self, modality: Modality, metric: str, members: FeatureClass | None = None) -> Estimate:
        """Mean of a metric over a class or, by default, over all live features."""
        values = getattr(self.of(modality), metric)
        return Estimate.of(values[self._members(members)])

    def modality_mono(self, modality: Modality, metric: str = "mono") -> Estimate:
        """Visual Mono, Mono(ImgD) − Mono(TextD) on images, or Textual Mono, Mono(TextD) − Mono(ImgD) on texts."""
        image = self.estimate(modality, metric, "ImgD")
        text = self.estimate(modality, metric, "TextD")
        return image - text if modality == "image" else text - image

    def _members(self, members: FeatureClass | None) -> Bool[Tensor, " features"]:
        mask = torch.zeros(len(self.partition), dtype=torch.bool)
        if members is None:
            mask[:] = True
            mask[self.partition.dead] = False
        else:
            mask[self.partition[members]] = True
        return mask

    def averages(self) -> Iterator[dict[str, object]]:
        """Yield one row per modality and class, as in Table 4; None if a class has no scored feature."""
        for modality in MODALITIES:
            for members in CLASS_ROWS:
                row: dict[str, object] = {
                    "feature_set": self.name, "samples": modality, "class": members or "all",
                    "features": int(self._members(members).sum()),
                    "scored": self.estimate(modality, "mono", members).count,
                }  # fmt: skip
                for metric in METRICS:
                    estimate = self.estimate(modality, metric, members)
                    row[metric] = estimate.mean if estimate.count else None
                    row[f"{metric}_se"] = estimate.error if estimate.count > 1 else None
                yield row

    def to_rows(self) -> list[dict[str, object]]:
        """Return one table row per modality and feature."""
        classes = self.partition.class_of()
        rows: list[dict[str, object]] = []
        for modality in MODALITIES:
            scores = self.of(modality)
            columns = {f.name: getattr(scores, f.name).tolist() for f in fields(scores) if f.name != "draw_error"}
            rows += [
                {
                    "feature_set": self.name, "feature": i, "class": classes[i], "samples": modality,
                    **{name: values[i] for name, values in columns.items()},
                }
                for i in range(len(classes))
            ]  # fmt: skip
        return rows
