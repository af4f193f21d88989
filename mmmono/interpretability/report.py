"""Results of Section 3.2 for one feature set: monosemanticity on each modality, by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mmmono.features.store import MODALITIES, Modality
from mmmono.interpretability.chance import DRAWN, Chance, Lookup, eq5_scores
from mmmono.interpretability.feature_means import FeatureMean
from mmmono.interpretability.top_samples import TopSamples
from mmmono.modality import LIVE_CLASSES, FeatureClass, Partition

METRICS = ("mono", "embsim", "winrate", "embsim_pooled", "ms")
CORRECTED = ("mono", "embsim", "winrate")  # metrics that are also reported above their chance level
CLASS_ROWS: tuple[FeatureClass | None, ...] = (None, *LIVE_CLASSES)  # None: all live features


@dataclass(frozen=True)
class Monosemanticity:
    """Scores of every feature on one modality; NaN for features with fewer than m samples.

    Attributes:
        by_draw: scores by draw of the random samples; metrics in the order of `chance.DRAWN`.
        ms: MS of Pach et al. 2025 over all samples; NaN if undefined or not computed.
        chance: chance level of the scores; None if it was not measured.
    """

    by_draw: Float64[Tensor, "metrics draws features"]
    ms: Float64[Tensor, " features"]
    chance: Chance | None = None

    def draws_of(self, metric: str) -> Float64[Tensor, "draws features"]:
        """Return a metric by draw; MS, which has no draws, as one draw."""
        return self.ms[None] if metric == "ms" else self.by_draw[DRAWN.index(metric)]

    def of(self, metric: str, *, corrected: bool = False) -> Float64[Tensor, " features"]:
        """Return a metric of every feature, averaged over draws; `corrected` is minus its chance level.

        Raises:
            ValueError: `corrected`, but no chance level was measured.
        """
        values = self.draws_of(metric).mean(0)
        return values - self._chance(metric).mean() if corrected else values

    @property
    def embsim(self) -> Float64[Tensor, " features"]:
        """EmbSim as printed in Eq. 5."""
        return self.of("embsim")

    @property
    def embsim_pooled(self) -> Float64[Tensor, " features"]:
        """EmbSim as a ratio of means, see `embsim`."""
        return self.of("embsim_pooled")

    @property
    def winrate(self) -> Float64[Tensor, " features"]:
        """WinRate of Eq. 5."""
        return self.of("winrate")

    @property
    def mono(self) -> Float64[Tensor, " features"]:
        """Mono, the mean of EmbSim and WinRate."""
        return self.of("mono")

    def estimate(self, metric: str, members: Bool[Tensor, " features"], *, corrected: bool = False) -> FeatureMean:
        """Estimate the mean over some features that are scored; `corrected` is minus its chance level.

        The standard error holds the choice of features and that of the random samples; the chance level's own error is in
        the latter, since level and scores share their draws.

        Raises:
            ValueError: `corrected`, but no chance level was measured.
        """
        if metric == "ms":
            return FeatureMean.of(self.ms[members])
        mean = FeatureMean.over_draws(self.draws_of(metric)[:, members])
        return mean.above(self._chance(metric)) if corrected else mean

    def _chance(self, metric: str) -> Float64[Tensor, " draws"]:
        if self.chance is None:
            raise ValueError(f"no chance level of {metric} was measured: give one to `monosemanticity`")
        return self.chance.of(metric)


def monosemanticity(
    top: TopSamples,
    random: Int64[Tensor, "draws features m"],
    embed: Lookup,
    ms: Float64[Tensor, " features"] | None = None,
    chance: Chance | None = None,
) -> Monosemanticity:
    """Compute EmbSim, WinRate and Mono (Eq. 5) of all features on one modality.

    Args:
        top: the m most activating samples of each feature.
        random: rows of m random samples for every draw and feature.
        embed: returns the embeddings of rows, as unit vectors.
        ms: MS of each feature, if computed.
        chance: chance level of the scores in the same draws, see `chance_level`.
    """
    features, m = top.rows.shape
    enough = (top.found == m).nonzero().squeeze(1)
    scores = torch.full((len(DRAWN), len(random), features), torch.nan, dtype=torch.float64)
    for draw, rows in enumerate(random):
        scores[:, draw, enough] = eq5_scores(top.rows[enough], rows[enough], embed)
    nothing = torch.full((features,), torch.nan, dtype=torch.float64)
    return Monosemanticity(scores, nothing if ms is None else ms, chance)


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

    def estimate(
        self, modality: Modality, metric: str, members: FeatureClass | None = None, *, corrected: bool = False
    ) -> FeatureMean:
        """Mean of a metric over a class or, by default, over all live features; see `Monosemanticity.estimate`."""
        return self.of(modality).estimate(metric, self._members(members), corrected=corrected)

    def modality_mono(self, modality: Modality, metric: str = "mono") -> FeatureMean:
        """Visual Mono, Mono(ImgD) − Mono(TextD) on images, or Textual Mono, Mono(TextD) − Mono(ImgD) on texts.

        The chance level is the same for both classes and cancels.
        """
        image = self.estimate(modality, metric, "ImgD")
        text = self.estimate(modality, metric, "TextD")
        return image - text if modality == "image" else text - image

    def size(self, members: FeatureClass | None) -> int:
        """Number of features of a class or, for None, of all live ones."""
        return int(self._members(members).sum())

    def _members(self, members: FeatureClass | None) -> Bool[Tensor, " features"]:
        if members is None:
            return self.partition.is_live
        mask = torch.zeros(len(self.partition), dtype=torch.bool)
        mask[self.partition[members]] = True
        return mask

    def averages(self) -> Iterator[dict[str, object]]:
        """Yield one row per modality and class, as in Table 4; None if a class has no scored feature."""
        for modality in MODALITIES:
            chance = self.of(modality).chance
            for members in CLASS_ROWS:
                mono = self.estimate(modality, "mono", members)
                row: dict[str, object] = {
                    "feature_set": self.name, "samples": modality, "class": members or "all",
                    "features": self.size(members), "scored": mono.count,
                }  # fmt: skip
                for metric in METRICS:
                    row |= _cells(metric, self.estimate(modality, metric, members))
                if chance is None:
                    yield row
                    continue
                for metric in CORRECTED:
                    corrected = self.estimate(modality, metric, members, corrected=True)
                    row |= _cells(f"{metric}_corrected", corrected)
                    row |= {f"{metric}_chance": chance.level(metric), f"{metric}_chance_se": chance.error(metric)}
                    if metric == "mono":
                        known = corrected.count and len(corrected.by_draw) > 1
                        row["draw_error"] = corrected.draw_error if known else None
                yield row

    def to_rows(self) -> list[dict[str, object]]:
        """Return one table row per modality and feature."""
        classes = self.partition.class_of()
        rows: list[dict[str, object]] = []
        for modality in MODALITIES:
            scores = self.of(modality)
            columns = {metric: scores.of(metric).tolist() for metric in METRICS}
            if scores.chance is not None:
                columns |= {f"{m}_corrected": scores.of(m, corrected=True).tolist() for m in CORRECTED}
            rows += [
                {
                    "feature_set": self.name, "feature": i, "class": classes[i], "samples": modality,
                    **{name: values[i] for name, values in columns.items()},
                }
                for i in range(len(classes))
            ]  # fmt: skip
        return rows


def _cells(name: str, estimate: FeatureMean) -> dict[str, object]:
    """Cells of a saved table: a mean and its standard error; None where they are not known."""
    return {
        name: estimate.mean if estimate.count else None,
        f"{name}_se": estimate.error if estimate.count > 1 else None,
    }
