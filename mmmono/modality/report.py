"""The result of Section 2.1 for one feature set: scores, classes, and the numbers that summarize them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from mmmono.modality.dominance import DominanceScores
from mmmono.modality.partition import CLASSES, ROUNDING, Partition


@dataclass(frozen=True)
class DominanceSummary:
    """Counts of the classes, and moments of the scores of live features.

    Attributes:
        mean, std: μ and σ of the partition rule; std is the population's.
        skewness: third standardized moment; positive where the tail is on the image side, NaN where all scores are equal.
        half_width: mean 95 % confidence half-width of a feature's score, over pairs; of features with at least two.
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
    """Modality dominance of one feature set."""

    name: str
    scores: DominanceScores
    partition: Partition

    @property
    def summary(self) -> DominanceSummary:
        """Counts and moments."""
        live = torch.cat([self.partition[name] for name in CLASSES if name != "dead"])
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
        """The summary as a table's row."""
        return {"feature set": self.name, **asdict(self.summary)}

    def to_rows(self) -> list[dict[str, object]]:
        """One row a feature."""
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
