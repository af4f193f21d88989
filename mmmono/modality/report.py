"""Result of Section 2.1 for one feature set: scores, classes and summary statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from mmmono.modality.dominance import DominanceScores
from mmmono.modality.partition import CLASSES, ROUNDING, Partition


@dataclass(frozen=True)
class DominanceSummary:
    """Class sizes, and statistics of the live features' scores.

    Attributes:
        pairs: number of pairs behind the scores.
        features: number of all features.
        ImgD, TextD, CrossD, dead: number of features in each class.
        mean, std: μ and σ (population) of the paper's partition rule.
        skewness: third standardized moment; positive if the longer tail is towards images, NaN if all scores are equal.
        lowest, highest: range of the scores.
        half_width: mean half-width of the scores' 95 % confidence intervals (1.96 standard errors over pairs); features
            without a standard error are left out.
    """

    pairs: int
    features: int
    ImgD: int
    TextD: int
    CrossD: int
    dead: int
    mean: float
    std: float
    skewness: float
    lowest: float
    highest: float
    half_width: float


@dataclass(frozen=True)
class FeatureSetDominance:
    """Modality dominance scores and partition of one feature set."""

    name: str
    scores: DominanceScores
    partition: Partition

    @property
    def summary(self) -> DominanceSummary:
        """Class sizes and statistics of the live features' scores."""
        live = self.partition.live
        scores = self.scores.scores[live]
        mean, std = (scores.mean(), scores.std(correction=0)) if len(live) else (scores.sum() * torch.nan,) * 2
        return DominanceSummary(
            pairs=self.scores.num_pairs,
            features=len(self.partition),
            **{name: len(self.partition[name]) for name in CLASSES},
            mean=float(mean),
            std=float(std),
            skewness=float(((scores - mean) / std).pow(3).mean()) if std > ROUNDING else float("nan"),
            lowest=float(scores.min()) if len(live) else float("nan"),
            highest=float(scores.max()) if len(live) else float("nan"),
            half_width=float(1.96 * self.scores.standard_error[live].nanmean()),
        )

    def to_row(self) -> dict[str, object]:
        """Return the summary as one table row."""
        return {"feature_set": self.name, **asdict(self.summary)}

    def to_rows(self) -> list[dict[str, object]]:
        """Return one table row per feature."""
        columns = {
            "mds": self.scores.scores,
            "standard_error": self.scores.standard_error,
            "informative_pairs": self.scores.informative_pairs,
            "image_active": self.scores.image_active,
            "text_active": self.scores.text_active,
        }
        values = {name: tensor.tolist() for name, tensor in columns.items()}
        return [
            {"feature_set": self.name, "feature": index, "class": name, **{c: v[index] for c, v in values.items()}}
            for index, name in enumerate(self.partition.class_of())
        ]
